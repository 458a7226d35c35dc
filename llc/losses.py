"""Losses by name: (outputs (batch, out), targets) → (batch,). Tensor methods only: the module needs no torch."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["cross_entropy", "mse", "gaussian_nll"]


def cross_entropy(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    """−log softmax(outputs)[target]; targets (batch,) are class indices."""
    return outputs.logsumexp(-1) - outputs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def mse(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    """Mean over the outputs of (y − f)²."""
    return (outputs - targets).square().mean(-1)


def gaussian_nll(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    """½‖y − f‖², the negative log-likelihood of unit noise up to a constant."""
    return (outputs - targets).square().sum(-1) / 2


LOSSES: Mapping[LossName, "Callable[[Tensor, Tensor], Tensor]"] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "gaussian_nll": gaussian_nll,
}
