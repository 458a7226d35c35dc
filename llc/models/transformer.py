"""The decoder-only transformer with layer norm before each block [Vaswani et al. 2017, Xiong et al. 2020]:

    h = E[x] + P,   h ← h + Attention(LN(h)),   h ← h + MLP(LN(h)),   outputs U LN(h).

The parameters have the names of `torch.nn.TransformerEncoder` with `norm_first=True`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from llc.data import ArrayInfo
from llc.layout import Layout
from llc.models.base import Model, check_tokens
from llc.models.mlp import ACTIVATIONS, Size

if TYPE_CHECKING:
    from torch import Tensor

Params = Mapping[str, "Tensor"]
TokenLoss = Literal["next_token_cross_entropy", "cross_entropy"]

LAYER_NORM_EPSILON = 1e-5


class Transformer(Model[TokenLoss]):
    """Causal self-attention and perceptrons on a residual stream. Parameters: `token_embedding.weight` (vocabulary,
    d_model) and `position_embedding.weight` (context, d_model); for each layer `layers.{i}.self_attn.in_proj_weight`
    (3 d_model, d_model), queries, keys and values on top of each other, `.in_proj_bias`, `.out_proj.weight` and
    `.out_proj.bias`, `layers.{i}.linear1` (d_mlp, d_model) and `.linear2` with biases; `layers.{i}.norm1` before
    attention, `.norm2` before the perceptron and a last `norm`; `unembedding.weight` (vocabulary, d_model).
    """

    family: Literal["transformer"] = "transformer"
    loss: TokenLoss = Field(
        default="next_token_cross_entropy",
        description="Of each token given those before it; or of a class 'y' (n,), read off the last position.",
    )
    vocabulary_size: Size = Field(description="Tokens are 0 … vocabulary_size − 1, and so are classes.")
    context_length: int = Field(ge=2, le=65_536, description="Tokens of one input.")
    d_model: Size = Field(description="Width of the residual stream.")
    num_layers: int = Field(ge=1, le=256)
    num_heads: Size = Field(description="Attention heads of a layer, of d_model / num_heads dimensions each.")
    d_mlp: int = Field(ge=0, le=1_000_000, description="Hidden units of a layer's perceptron; 0: attention only.")
    activation: Literal["gelu", "relu"] = "gelu"
    layer_norm: bool = True

    @model_validator(mode="after")
    def _heads_share_the_model(self) -> Self:
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model {self.d_model} is no multiple of num_heads {self.num_heads}")
        return self

    def layout(self) -> Layout:
        vocabulary, d = self.vocabulary_size, self.d_model
        shapes: dict[str, tuple[int, ...]] = {
            "token_embedding.weight": (vocabulary, d),
            "position_embedding.weight": (self.context_length, d),
        }
        for i in range(self.num_layers):
            layer = f"layers.{i}"
            shapes |= {
                f"{layer}.self_attn.in_proj_weight": (3 * d, d),
                f"{layer}.self_attn.in_proj_bias": (3 * d,),
                f"{layer}.self_attn.out_proj.weight": (d, d),
                f"{layer}.self_attn.out_proj.bias": (d,),
            }
            if self.d_mlp:
                shapes |= {
                    f"{layer}.linear1.weight": (self.d_mlp, d),
                    f"{layer}.linear1.bias": (self.d_mlp,),
                    f"{layer}.linear2.weight": (d, self.d_mlp),
                    f"{layer}.linear2.bias": (d,),
                }
            shapes |= self._norm_shapes(f"{layer}.norm1")
            if self.d_mlp:
                shapes |= self._norm_shapes(f"{layer}.norm2")
        return Layout({**shapes, **self._norm_shapes("norm"), "unembedding.weight": (vocabulary, d)})

    def forward(self, params: Params, x: "Tensor") -> "Tensor":
        # index_select, for its backward pass is several times faster than that of indexing.
        h = params["token_embedding.weight"].index_select(0, x.flatten()).reshape(*x.shape, self.d_model)
        h = h + params["position_embedding.weight"]
        mask = h.new_full((self.context_length, self.context_length), float("-inf")).triu(1)
        for i in range(self.num_layers):
            h = h + self._attend(params, f"layers.{i}.self_attn", self._normalise(params, f"layers.{i}.norm1", h), mask)
            if self.d_mlp:
                hidden = _linear(params, f"layers.{i}.linear1.", self._normalise(params, f"layers.{i}.norm2", h))
                h = h + _linear(params, f"layers.{i}.linear2.", ACTIVATIONS[self.activation](hidden))
        if self.loss == "cross_entropy":
            h = h[:, -1]
        return self._normalise(params, "norm", h) @ params["unembedding.weight"].mT

    @property
    def num_outputs(self) -> int:
        return self.vocabulary_size

    @property
    def targets(self) -> Literal["x", "y"]:
        return "x" if self.loss == "next_token_cross_entropy" else "y"

    def check_inputs(self, x: ArrayInfo) -> None:
        check_tokens(x, self.context_length, self.vocabulary_size)

    def _norm_shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (self.d_model,), f"{name}.bias": (self.d_model,)} if self.layer_norm else {}

    def _normalise(self, params: Params, name: str, h: "Tensor") -> "Tensor":
        if not self.layer_norm:
            return h
        centred = h - h.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + LAYER_NORM_EPSILON).rsqrt()
        return centred * scale * params[f"{name}.weight"] + params[f"{name}.bias"]

    def _attend(self, params: Params, name: str, h: "Tensor", mask: "Tensor") -> "Tensor":
        # Written out, for the fused attention has no second derivative on a CPU.
        batch, positions, d = h.shape
        heads, width = self.num_heads, d // self.num_heads
        projected = _linear(params, f"{name}.in_proj_", h).reshape(batch, positions, 3, heads, width)
        q, k, v = projected.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind()
        scores = (q * width**-0.5) @ k.mT
        values = scores.add_(mask).softmax(-1) @ v
        mixed = values.reshape(batch, heads, positions, width).transpose(1, 2).flatten(2)
        return _linear(params, f"{name}.out_proj.", mixed)


def _linear(params: Params, prefix: str, h: "Tensor") -> "Tensor":
    return h @ params[f"{prefix}weight"].mT + params[f"{prefix}bias"]
