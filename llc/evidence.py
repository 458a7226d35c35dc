"""What else changes at a transition: any curve over the same steps, a measure's or one that training itself kept.

With x = log(step + c), a transition from a to b, and y_i a curve with standard errors s_i:

    change = Σ_{after} w_i y_i − Σ_{before} w_i y_i,    var = Σ_{after} w_i² s_i² + Σ_{before} w_i² s_i²

before: the last NEAR checkpoints up to a, after: the first NEAR from b on, neither beyond a neighbouring transition's
middle; w_i alike, with sum 1. A curve without errors has the s that its own roughness tells: a robust scale of what
each point is off the line between its neighbours, at x_i = (1 − t) x_{i−1} + t x_{i+1}, over √(1 + (1 − t)² + t²):
that of the whole curve, or, where it is more than UNEVEN times that, of the AROUND points there.

A curve *changes* at a transition if |change| is beyond `min_z` standard errors, and `plateau_share` of its range.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llc.settings import StageSettings
from llc.summaries import ROBUST, around

Floats = NDArray[np.float64]

NEAR = 3
AROUND = 15  # most of these are not at a bend
UNEVEN = 2.5  # times the whole curve's: less may be chance
LEAST = 1e-9  # of a curve's range: the standard error of one that is smooth to the last digit
MAX = 1e150  # beyond, squares are no numbers any more


@dataclass(frozen=True)
class Change:
    """Of a curve over a transition. share: of its range over the run; z: in standard errors."""

    value: float
    std_error: float
    share: float
    z: float
    changes: bool


def changes_at(
    transitions: Sequence[tuple[int, int]],
    step: Sequence[int],
    value: Sequence[float | None],
    std_error: Sequence[float | None] | None,
    settings: StageSettings,
) -> list[Change | None]:
    """How a curve changes at each of these transitions, (from_step, to_step) in order; None where it isn't known.

    std_error: None where the curve has none of its own. Values that are no numbers, or beyond MAX, are left out.
    """
    y = np.array(value, dtype=np.float64)
    s = None if std_error is None else np.array(std_error, dtype=np.float64)
    known = np.abs(y) < MAX if s is None else (np.abs(y) < MAX) & (s < MAX)
    steps, y = np.array(step)[known], y[known]
    x = np.log(steps + settings.step_offset)
    if len(y) < 3:
        return [None] * len(transitions)
    span = float(np.ptp(y))
    s = _roughness(x, y) if s is None else s[known]
    s = np.maximum(s, max(LEAST * span, 1 / MAX))
    ends = np.log(np.array(transitions, dtype=np.float64).reshape(-1, 2) + settings.step_offset)
    middles = ends.mean(axis=1)
    bounds = np.concatenate([[-np.inf], middles, [np.inf]])
    found: list[Change | None] = []
    for number, (start, stop) in enumerate(transitions):  # far out logarithms can't tell steps apart
        before = np.flatnonzero((steps <= start) & (x > bounds[number]))[-NEAR:]
        after = np.flatnonzero((steps >= stop) & (x < bounds[number + 2]))[:NEAR]
        found.append(_change(y, s, before, after, span, settings) if len(before) and len(after) else None)
    return found


def _change(
    y: Floats, s: Floats, before: NDArray[np.intp], after: NDArray[np.intp], span: float, settings: StageSettings
) -> Change:
    value = float(y[after].mean() - y[before].mean())
    error = float(np.hypot(*(np.sqrt((s[where] ** 2).sum()) / len(where) for where in (before, after))))
    share, z = abs(value) / span if span > 0 else 0.0, value / error
    return Change(value, error, share, z, abs(z) > settings.min_z and share > settings.plateau_share)


def _roughness(x: Floats, y: Floats) -> Floats:
    """The standard error of each point of a curve that comes with none: (points,)."""
    wide = x[2:] - x[:-2]
    t = np.where(wide > 0, (x[1:-1] - x[:-2]) / np.where(wide > 0, wide, 1.0), 0.5)
    off = (y[1:-1] - (1 - t) * y[:-2] - t * y[2:]) / np.sqrt(1 + (1 - t) ** 2 + t**2)
    near = ROBUST * np.nanmedian(around(np.pad(np.abs(off), 1, constant_values=np.nan), AROUND), axis=1)
    whole = ROBUST * float(np.median(np.abs(off)))
    return np.where(near > UNEVEN * whole, near, whole)
