"""The common shape of measures: a series in, one `Measurement` for each checkpoint out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llc.draw_files import KeptDraws
from llc.ensemble import PLAN, Plan
from llc.health import OK, Verdict
from llc.objective import Objective
from llc.progress import NO_PROGRESS, Progress


@dataclass(frozen=True)
class Quantity:
    """A number and its standard error; either is NaN where there is none."""

    value: float
    std_error: float
    verdict: Verdict | None = None
    """Of its own; None: the measurement's."""


@dataclass(frozen=True)
class Measurement:
    """What a measure found at one checkpoint.

    details: JSON-like, what a curve doesn't show; draws: what its chains left behind, if it has any and they are kept.
    """

    quantities: Mapping[str, Quantity]
    verdict: Verdict = OK
    details: Mapping[str, Any] = field(default_factory=dict)
    draws: KeptDraws | None = None


@dataclass(frozen=True)
class CheckpointSeries:
    """The checkpoints that are measured together, and what all measures share."""

    objective: Objective
    anchors: Tensor
    """(checkpoints, d): w*_k."""
    sample_losses: Tensor
    """(checkpoints, n): the per-sample losses there; the loss curve, and the paired baseline of the LLC."""
    progress: Progress = NO_PROGRESS
    others: Mapping[str, Objective] = field(default_factory=dict)
    """The same model on other data sets, by their ids."""
    plan: Plan = PLAN
