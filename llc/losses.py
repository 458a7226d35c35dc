"""Losses by name: (outputs (batch, ...), targets) → (batch,). Tensor methods only: the module needs no torch."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

RealLoss = Literal["mse", "gaussian_nll"]
"""Losses of real-valued targets."""

VectorLoss = Literal["cross_entropy", RealLoss]
"""Losses of outputs (batch, out)."""

LossName = Literal["next_token_cross_entropy", VectorLoss]


def cross_entropy(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    """−log softmax(outputs)[target]; targets (batch,) are class indices."""
    return outputs.logsumexp(-1) - outputs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def next_token_cross_entropy(outputs: "Tensor", tokens: "Tensor") -> "Tensor":
    """Mean over the positions t, the last one left out, of −log softmax(outputs_t)[token_{t+1}]; outputs (batch,
    positions, vocabulary), tokens (batch, positions).
    """
    # The last position, whose next token is unknown, is left out last: a slice of the outputs would be copied.
    next_tokens = tokens.roll(-1, -1).unsqueeze(-1)
    return -outputs.log_softmax(-1).gather(-1, next_tokens).squeeze(-1)[:, :-1].mean(-1)


def mse(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    """Mean over the outputs of (y − f)²."""
    return (outputs - targets).square().mean(-1)


def gaussian_nll(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    """½‖y − f‖², the negative log-likelihood of unit noise up to a constant."""
    return (outputs - targets).square().sum(-1) / 2


LOSSES: Mapping[LossName, "Callable[[Tensor, Tensor], Tensor]"] = {
    "cross_entropy": cross_entropy,
    "next_token_cross_entropy": next_token_cross_entropy,
    "mse": mse,
    "gaussian_nll": gaussian_nll,
}
