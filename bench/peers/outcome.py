"""What a peer's call gives, before it is made JSON."""

from collections.abc import Sequence
from typing import NamedTuple


class Outcome(NamedTuple):
    """llc: the peer's own mean; per_chain: (chains,); loss_evaluations: samples of forward passes for the baseline."""

    llc: float
    per_chain: Sequence[float]
    loss_evaluations: int
    error: str | None = None
