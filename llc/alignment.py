"""What several runs of one experiment, seeds say, have in common: their transitions, aligned.

The common sequence, and which transition of each run is which, come from `llc.matching`, on the axis log(step + 1),
where a run may be slower than others as a whole, or on that of the loss, where speed plays no part; how a run differs
from it, and which are outliers, from `llc.differences`. Here are the numbers of it: positions are medians and quantiles
of the runs, and the standard errors of ΔLLC and Δloss are those of a mean over runs, from how runs differ.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from llc.differences import Run, runs_beside
from llc.matching import Axis, Matching, Transition, Type, robust
from llc.summaries import INTERVAL

TYPES: tuple[Type, ...] = ("A", "B")


class Spread(BaseModel):
    """Of a number over the runs: its median, and low … high, which hold 90 %."""

    median: float
    low: float
    high: float


class Mean(BaseModel):
    """Over the runs."""

    value: float
    std_error: float | None = Field(description="From the differences between runs; null: of one run.")


class Common(BaseModel):
    """A transition that at least half of the runs have, and at least two."""

    support: int = Field(description="How many runs have it.")
    direction: Literal["rise", "fall"] = Field(description="Of the LLC.")
    type: Type | None = Field(description="That more than half of them have.")
    types: dict[Literal["A", "B", "neither"], int] = Field(description="How many have each type.")
    from_step: Spread = Field(description="Quantiles on the axis log(step + 1).")
    to_step: Spread = Field(description="Quantiles on the axis log(step + 1).")
    from_loss: Spread | None = Field(description="The loss where it starts; null unless the axis is the loss.")
    to_loss: Spread | None = Field(description="The loss where it ends; null unless the axis is the loss.")
    spread: float | None = Field(
        description="Robust standard deviation of its middle: of log(step + 1), tempo apart, or of the loss."
    )
    delta_llc: Mean
    delta_loss: Mean | None = Field(description="Of the runs where it is known; null: of none.")


class Alignment(BaseModel):
    """Of several runs: their common sequence, and each run beside it, in the order in which they were given."""

    axis: Axis
    common: list[Common]
    runs: list[Run]


def align(runs: Sequence[Sequence[Transition]], axis: Axis = "step") -> Alignment:
    """Align runs, each given by its transitions in the order of training. In which order runs are does not matter.

    axis: where transitions are compared, by log(step + 1) or by the loss, for which all have to have both losses.
    """
    if not runs:
        return Alignment(axis=axis, common=[], runs=[])
    order = sorted(range(len(runs)), key=lambda run: [_key(transition) for transition in runs[run]])
    ordered = [runs[run] for run in order]  # so that ties and the last bits of sums don't depend on the order either
    matching = Matching(ordered, axis)
    common = [_common(matching, ordered, k, axis) for k in range(len(matching.common.sign))]
    found = runs_beside(matching, ordered, [_named(one) for one in common])
    return Alignment(axis=axis, common=common, runs=[found[place] for place in np.argsort(order)])


def _key(transition: Transition) -> tuple[object, ...]:
    """Which of two transitions is first, if they differ at all."""
    t = transition
    rest = t.delta_llc_std_error, t.delta_loss, t.from_loss, t.to_loss
    return t.from_step, t.to_step, t.delta_llc, t.type or "", *((value is None, value or 0.0) for value in rest)


def _common(matching: Matching, runs: Sequence[Sequence[Transition]], k: int, axis: Axis) -> Common:
    found = [run[i] for run, i in zip(runs, matching.matched[:, k], strict=True) if i >= 0]
    types = Counter[Literal["A", "B", "neither"]](t.type or "neither" for t in found)
    from_step, to_step = map(_steps, _spreads([(math.log1p(t.from_step), math.log1p(t.to_step)) for t in found]))
    at_losses = _spreads([(t.from_loss or 0.0, t.to_loss or 0.0) for t in found]) if axis == "loss" else (None, None)
    return Common(
        support=len(found),
        direction="rise" if matching.common.sign[k] > 0 else "fall",
        type=next((type_ for type_ in TYPES if 2 * types[type_] > len(found)), None),
        types=dict(types),
        from_step=from_step,
        to_step=to_step,
        from_loss=at_losses[0],
        to_loss=at_losses[1],
        spread=float(robust(matching.off[:, k, 0])) / matching.unit if len(found) > 1 else None,
        delta_llc=_mean([t.delta_llc for t in found]),
        delta_loss=_mean(losses) if (losses := [t.delta_loss for t in found if t.delta_loss is not None]) else None,
    )


def _named(common: Common) -> str:
    steps = f"from about step {common.from_step.median:.0f} to {common.to_step.median:.0f}"
    return f"{common.direction} of the LLC {steps}"


def _spreads(ends: Sequence[tuple[float, float]]) -> tuple[Spread, Spread]:
    """Of starts and of stops."""
    start, stop = np.quantile(ends, [0.5, *INTERVAL], axis=0).T.tolist()
    return Spread(median=start[0], low=start[1], high=start[2]), Spread(median=stop[0], low=stop[1], high=stop[2])


def _steps(logs: Spread) -> Spread:
    return Spread(**{name: round(math.expm1(value)) for name, value in logs})


def _mean(values: Sequence[float]) -> Mean:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(value=float(np.mean(values)), std_error=error)
