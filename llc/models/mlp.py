"""The multi-layer perceptron, `x ↦ W_L φ(… φ(W_1 x + b_1) …) + b_L`, on real inputs or on a sum of token embeddings."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from llc.data import ArrayInfo
from llc.layout import Layout
from llc.losses import VectorLoss
from llc.models.base import Model, check_real_inputs, check_tokens
from llc.settings import Frozen

if TYPE_CHECKING:
    from torch import Tensor

Size = Annotated[int, Field(ge=1, le=1_000_000)]

ACTIVATIONS: Mapping[str, "Callable[[Tensor], Tensor]"] = {
    "relu": lambda h: h.relu(),
    "tanh": lambda h: h.tanh(),
    "gelu": lambda h: (h / 2).addcmul(h / 2, (h / 2**0.5).erf()),
    "identity": lambda h: h,
}


class Embeddings(Frozen):
    """One table for each position of the input; the network sees the sum of the rows that the tokens choose."""

    vocabulary_size: Size = Field(description="Tokens are 0 … vocabulary_size − 1.")
    num_positions: int = Field(ge=1, le=4096, description="Tokens of one input, a table for each.")


class MLP(Model[VectorLoss]):
    """Fully connected layers. Parameters: `embeddings.{i}` (vocabulary, widths[0]) if asked for, then
    `layers.{i}.weight` (out, in) and `layers.{i}.bias` (out,).
    """

    family: Literal["mlp"] = "mlp"
    loss: VectorLoss = "cross_entropy"
    widths: tuple[Size, ...] = Field(min_length=2, max_length=256, description="Inputs, hidden layers, outputs.")
    activation: Literal["relu", "tanh", "gelu", "identity"] = "relu"
    bias: bool = True
    embeddings: Embeddings | None = Field(
        default=None, description="Token inputs, embedded in widths[0] numbers and summed."
    )

    def layout(self) -> Layout:
        shapes: dict[str, tuple[int, ...]] = {}
        if self.embeddings:
            for i in range(self.embeddings.num_positions):
                shapes[f"embeddings.{i}"] = (self.embeddings.vocabulary_size, self.widths[0])
        for i, (width_in, width_out) in enumerate(pairwise(self.widths)):
            shapes[f"layers.{i}.weight"] = (width_out, width_in)
            if self.bias:
                shapes[f"layers.{i}.bias"] = (width_out,)
        return Layout(shapes)

    def forward(self, params: "Mapping[str, Tensor]", x: "Tensor") -> "Tensor":
        # Samples are columns: then weights that differ from row to row multiply shared inputs without copies of them.
        h = self._embed(params, x).mT
        last = len(self.widths) - 2
        for i in range(last + 1):
            h = params[f"layers.{i}.weight"] @ h
            if self.bias:
                h = h + params[f"layers.{i}.bias"][:, None]
            if i < last:
                h = ACTIVATIONS[self.activation](h)
        return h.mT

    def _embed(self, params: "Mapping[str, Tensor]", x: "Tensor") -> "Tensor":
        if self.embeddings is None:
            return x
        h = params["embeddings.0"][x[:, 0]]
        for i in range(1, self.embeddings.num_positions):
            h = h + params[f"embeddings.{i}"][x[:, i]]
        return h

    @property
    def num_outputs(self) -> int:
        return self.widths[-1]

    def check_inputs(self, x: ArrayInfo) -> None:
        if self.embeddings is None:
            return check_real_inputs(x, self.widths[0])
        return check_tokens(x, self.embeddings.num_positions, self.embeddings.vocabulary_size)
