"""The toy model of superposition, `x ↦ ReLU(Wᵀ W x + b)`: c features through fewer hidden dimensions and back [Elhage
et al. 2022, transformer-circuits.pub/2022/toy_model].

Its learning coefficients at the k-gons, for one active feature uniform in [0, 1], are in `llc.exact` [Chen et al.
2023, arXiv 2310.06301].
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llc.data import ArrayInfo
from llc.layout import Layout
from llc.losses import RealLoss
from llc.models.base import Model, check_real_inputs
from llc.models.mlp import Size

if TYPE_CHECKING:
    from torch import Tensor


class ToyModelOfSuperposition(Model[RealLoss]):
    """An autoencoder: the inputs are its targets. Parameters: `W` (num_hidden, num_features), `b` (num_features,)."""

    family: Literal["tms"] = "tms"
    loss: RealLoss = "gaussian_nll"
    num_features: Size = Field(description="Length of an input, c.")
    num_hidden: Size = Field(default=2, description="Dimensions that the features share.")

    def layout(self) -> Layout:
        return Layout({"W": (self.num_hidden, self.num_features), "b": (self.num_features,)})

    def forward(self, params: "Mapping[str, Tensor]", x: "Tensor") -> "Tensor":
        W, b = params["W"], params["b"]
        return (x @ W.mT @ W + b).relu()

    @property
    def num_outputs(self) -> int:
        return self.num_features

    @property
    def targets(self) -> Literal["x", "y"]:
        return "x"

    def check_inputs(self, x: ArrayInfo) -> None:
        check_real_inputs(x, self.num_features)
