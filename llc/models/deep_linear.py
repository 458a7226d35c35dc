"""The deep linear network `x ↦ W_L … W_1 x`, whose learning coefficient is known exactly (`llc.exact`)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llc.data import ArrayInfo
from llc.layout import Layout
from llc.losses import VectorLoss
from llc.models.base import Model, check_real_inputs
from llc.models.mlp import Size

if TYPE_CHECKING:
    from torch import Tensor


class DeepLinear(Model[VectorLoss]):
    """A product of matrices. Parameters: `layers.{i}.weight` (out, in)."""

    family: Literal["deep_linear"] = "deep_linear"
    widths: tuple[Size, ...] = Field(min_length=2, max_length=256, description="Inputs, hidden layers, outputs.")
    loss: VectorLoss = "gaussian_nll"

    def layout(self) -> Layout:
        return Layout({f"layers.{i}.weight": (out, into) for i, (into, out) in enumerate(pairwise(self.widths))})

    def forward(self, params: "Mapping[str, Tensor]", x: "Tensor") -> "Tensor":
        h = x.mT  # samples are columns, as in an MLP
        for i in range(len(self.widths) - 1):
            h = params[f"layers.{i}.weight"] @ h
        return h.mT

    @property
    def num_outputs(self) -> int:
        return self.widths[-1]

    def check_inputs(self, x: ArrayInfo) -> None:
        check_real_inputs(x, self.widths[0])
