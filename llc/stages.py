"""A curve of the local learning coefficient read into plateaus and transitions.

The method, in x = log(step + 1); y the LLC, s its standard error:

1. *Bands.* Every checkpoint has a band y ± k s. With z the `min_z` of the settings and p its two-sided tail, k is such
   that two equal bands just part at Φ⁻¹(1 − p/(n(n − 1))) combined standard errors: the z of one comparison, made as
   strict for all the n(n − 1)/2 of a curve together. A standard error from a handful of chains is small by luck at
   times, so no s is smaller than the median around it, of nine checkpoints, × 1.13.
2. *Turning points* (hysteresis). A rise or fall counts once a band lies wholly beyond the best band so far the other
   way, and beyond it by `min_share` of the curve's range. A wide band is beyond nothing: a noisy point makes no turn.
3. *Moves.* Between two turning points the curve goes one way, from level to level. The transition runs from the last
   checkpoint still at the old level to the first one at the new: within `plateau_share` of the change, or within the
   noise, 2 s. What lies between transitions is a plateau; its level is the mean, weighted by 1/s², of its checkpoints
   that are that near to it, by the smaller of the changes beside it.
4. *Near-plateaus.* A move with a flat part i … j is two transitions: with b the mean slope of the slower of its two
   sides, |y_j − y_i| < b (x_j − x_i)/3, and what is missing, b (x_j − x_i) − |y_j − y_i|, is beyond the noise as in 1;
   each side changes by `min_share`, and the flat part lasts a tenth of that side or more.
5. *Types.* A: the LLC rises and the loss falls. B: the LLC falls and the loss changes slightly: by no more than
   `slight_loss_share` of its range over the whole run, or not beyond its error. Neither: no type, and the reason.

Errors of differences add in squares, as if checkpoints were independent; with noise shared between them that is
cautious.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import erfc, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llc.settings import StageSettings

Floats = NDArray[np.float64]

FLAT_SHARE = 1 / 3  # of the slope beside it, below which a part of a move is flat
FLAT_LENGTH = 0.1  # of the side, in x, which a flat part has to last
MEDIAN_ERROR = 1.13  # four chains' standard errors have a median of 1/1.13 of the true one: √(median of χ²₃ / 3)
NOISE = 2.0  # standard errors within which a checkpoint is still at a level


@dataclass(frozen=True)
class Stage:
    """A stretch of training, between two checkpoints of the curve.

    Changes are from `from_step` to `to_step`; a transition's ΔLLC is between the levels of the plateaus at its ends.
    None where the curve does not say. details: numbers behind the reading, such as a plateau's level.
    """

    kind: Literal["plateau", "transition"]
    type: Literal["A", "B"] | None
    from_step: int
    to_step: int
    delta_llc: float
    delta_llc_std_error: float
    delta_loss: float | None
    delta_loss_std_error: float | None
    reason: str
    details: dict[str, float] = field(default_factory=dict)


def read_stages(
    steps: Sequence[int],
    llc: Sequence[float | None],
    llc_std_error: Sequence[float | None],
    loss: Sequence[float | None],
    loss_std_error: Sequence[float | None],
    settings: StageSettings,
) -> list[Stage]:
    """The plateaus and transitions of a curve, in the order of training; a plateau of one checkpoint is not listed.

    steps: increasing. None, NaN or infinity where a checkpoint has no value: it is left out. Without three checkpoints
    that have an LLC and its error, there are no stages.
    """
    curve = _Curve.clean(steps, llc, llc_std_error, loss, loss_std_error, settings)
    if curve is None:
        return []
    return _stages(curve, _moves(curve, settings), settings)


@dataclass(frozen=True)
class _Curve:
    steps: list[int]
    x: Floats
    y: Floats
    s: Floats
    loss: Floats
    loss_s: Floats
    z: float  # standard errors that a difference between two checkpoints has to exceed

    @staticmethod
    def clean(
        steps: Sequence[int],
        llc: Sequence[float | None],
        llc_std_error: Sequence[float | None],
        loss: Sequence[float | None],
        loss_std_error: Sequence[float | None],
        settings: StageSettings,
    ) -> "_Curve | None":
        y, s, loss_, loss_s = (np.array(a, dtype=np.float64) for a in (llc, llc_std_error, loss, loss_std_error))
        keep = np.isfinite(y) & np.isfinite(s)
        kept = np.asarray(steps, dtype=np.int64)[keep]
        n = len(kept)
        if n < 3:
            return None
        around = np.lib.stride_tricks.sliding_window_view(np.pad(s[keep], 4, constant_values=np.nan), 9)
        least = max(1e-9 * np.ptp(y[keep]), 1e-100)  # errors of zero have weights too
        tail = max(erfc(settings.min_z / sqrt(2)) / (n * (n - 1)), 1e-300)
        return _Curve(
            [int(step) for step in kept],
            np.log1p(kept),
            y[keep],
            np.maximum(np.maximum(s[keep], MEDIAN_ERROR * np.nanmedian(around, axis=1)), least),
            np.where(np.isfinite(loss_), loss_, np.nan)[keep],
            loss_s[keep],
            max(settings.min_z, -NormalDist().inv_cdf(tail)),
        )

    def level(self, first: int, last: int, near: float, within: float) -> tuple[float, float]:
        """Mean LLC, weighted by 1/s², of those of the checkpoints first … last that are near a level, within so much or
        within the noise; and its standard error.
        """
        y, s = self.y[first : last + 1], self.s[first : last + 1]
        weight = (np.abs(y - near) <= np.maximum(within, NOISE * s)) / s**2
        if not weight.any():
            weight = 1 / s**2
        return float(np.average(y, weights=weight)), float(weight.sum() ** -0.5)

    def delta_loss(self, first: int, last: int) -> tuple[float, float] | None:
        """Change of the loss and its standard error, if known at both ends."""
        delta = float(self.loss[last] - self.loss[first])
        error = float(np.hypot(self.loss_s[first], self.loss_s[last]))
        return (delta, error) if np.isfinite(delta) and np.isfinite(error) else None


@dataclass(frozen=True)
class _Move:
    """A change from one level to another: the first and last of its checkpoints, the levels and their errors."""

    first: int
    last: int
    before: tuple[float, float]
    after: tuple[float, float]

    @property
    def change(self) -> float:
        return self.after[0] - self.before[0]


def _turning_points(curve: _Curve, min_share: float) -> list[int]:
    """The checkpoints between which the curve goes one way; none if it goes nowhere."""
    half = curve.z / sqrt(2) * curve.s
    low, high = curve.y - half, curve.y + half
    top, bottom = int(np.argmax(low)), int(np.argmin(high))
    if low[top] <= high[bottom]:
        return []
    least = min_share * (curve.y[top] - curve.y[bottom])

    def parted(above: int, below: int) -> bool:
        return bool(low[above] > high[below] and curve.y[above] - curve.y[below] > least)

    points: list[int] = []
    rising: bool | None = None
    top = bottom = 0  # since the last turning point
    for i in range(len(curve.y)):
        if low[i] > low[top]:
            top = i
        if high[i] < high[bottom]:
            bottom = i
        if rising is not False and parted(top, i):
            points.append(top)
            rising, bottom = False, i
        elif rising is not True and parted(i, bottom):
            points.append(bottom)
            rising, top = True, i
    return [*points, top if rising else bottom]


def _moves(curve: _Curve, settings: StageSettings) -> list[_Move]:
    """One move between every two turning points, and more where a move has a near-plateau."""
    points = _turning_points(curve, settings.min_share)
    while points:
        moves = _fit(curve, points, settings.plateau_share)
        flat = [middle for move in moves if (middle := _flat_part(curve, move, settings)) is not None]
        if not flat:
            return moves
        points = sorted(points + flat)
    return []


def _fit(curve: _Curve, points: list[int], plateau_share: float) -> list[_Move]:
    """A move between every two of the points, its ends trimmed to where it leaves and reaches its levels."""
    levels = [(float(curve.y[point]), float(curve.s[point])) for point in points]
    moves: list[_Move] = []
    for _ in range(4):  # levels give ends, and ends better levels
        moves = [
            _trim(curve, _Move(*ends, *around), plateau_share)
            for ends, around in zip(pairwise(points), pairwise(levels), strict=True)
        ]
        starts, stops = [0, *(move.last for move in moves)], [*(move.first for move in moves), len(curve.y) - 1]
        changes = pairwise([np.inf, *(abs(move.change) for move in moves), np.inf])
        levels = [
            curve.level(*ends, near=level, within=plateau_share * min(beside))
            for *ends, (level, _), beside in zip(starts, stops, levels, changes, strict=True)
        ]
    return [_Move(move.first, move.last, *around) for move, around in zip(moves, pairwise(levels), strict=True)]


def _trim(curve: _Curve, move: _Move, plateau_share: float) -> _Move:
    inside = np.arange(move.first, move.last + 1)
    tolerance = np.maximum(plateau_share * abs(move.change), NOISE * curve.s[inside])
    tells = tolerance < abs(move.change) / 2  # a checkpoint too noisy to be at one level only is at neither
    at_old = inside[tells & (np.abs(curve.y[inside] - move.before[0]) <= tolerance)]
    first = int(at_old.max(initial=move.first))
    at_new = inside[tells & (np.abs(curve.y[inside] - move.after[0]) <= tolerance) & (inside > first)]
    return _Move(first, int(at_new.min(initial=move.last)), move.before, move.after)


def _flat_part(curve: _Curve, move: _Move, settings: StageSettings) -> int | None:
    """The middle checkpoint of the move's clearest near-plateau, if it has one."""
    x, y, s = curve.x, curve.y * np.sign(move.change), curve.s
    first, last = move.first, move.last
    i, j = (first + 1 + inside for inside in np.triu_indices(last - first - 1, k=1))  # all pairs
    change_in, change, change_out = y[i] - y[first], y[j] - y[i], y[last] - y[j]
    ratio_in, ratio_out = (x[j] - x[i]) / (x[i] - x[first]), (x[j] - x[i]) / (x[last] - x[j])
    slow_in = change_in * ratio_in < change_out * ratio_out
    # What i … j would have covered at the slope of its slower side: linear in the side's far end, its near end and the
    # flat part's other end.
    ratio = np.where(slow_in, ratio_in, ratio_out)
    expected = np.where(slow_in, change_in * ratio_in, change_out * ratio_out)
    far, near, other = (
        np.where(slow_in, s[first], s[last]),
        np.where(slow_in, s[i], s[j]),
        np.where(slow_in, s[j], s[i]),
    )
    missing = expected - np.abs(change)
    flat = (
        (missing > curve.z * np.sqrt((ratio * far) ** 2 + ((1 + ratio) * near) ** 2 + other**2))
        & (np.abs(change) < FLAT_SHARE * expected)
        & (ratio > FLAT_LENGTH)
        & (np.minimum(change_in, change_out) > settings.min_share * np.ptp(y))
    )
    if not flat.any():
        return None
    best = int(np.argmax(np.where(flat, missing, -np.inf)))
    return int(i[best] + j[best]) // 2


def _stages(curve: _Curve, moves: list[_Move], settings: StageSettings) -> list[Stage]:
    stages: list[Stage] = []
    at = 0
    for move in moves:
        stages += _plateau(curve, at, move.first)
        stages.append(_transition(curve, move, settings))
        at = move.last
    return stages + _plateau(curve, at, len(curve.y) - 1)


def _plateau(curve: _Curve, first: int, last: int) -> list[Stage]:
    if first == last:
        return []
    delta_loss, delta_loss_s = curve.delta_loss(first, last) or (None, None)
    level, level_s = curve.level(first, last, near=0.0, within=np.inf)
    delta, delta_s = float(curve.y[last] - curve.y[first]), float(np.hypot(curve.s[first], curve.s[last]))
    changes = f"changes by {abs(delta):.3g}" if abs(delta) > curve.z * delta_s else "does not change beyond its noise"
    return [
        Stage(
            "plateau",
            None,
            curve.steps[first],
            curve.steps[last],
            delta,
            delta_s,
            delta_loss,
            delta_loss_s,
            f"from its first checkpoint to its last the LLC {changes}",
            {"llc": level, "llc_std_error": level_s},
        )
    ]


def _transition(curve: _Curve, move: _Move, settings: StageSettings) -> Stage:
    changed = curve.delta_loss(move.first, move.last)
    delta_loss, delta_loss_s = changed or (None, None)
    type_, reason = _classify(curve, move.change, changed, settings)
    return Stage(
        "transition",
        type_,
        curve.steps[move.first],
        curve.steps[move.last],
        move.change,
        float(np.hypot(move.before[1], move.after[1])),
        delta_loss,
        delta_loss_s,
        reason,
        {"llc_before": move.before[0], "llc_after": move.after[0]},
    )


def _classify(
    curve: _Curve, delta_llc: float, changed: tuple[float, float] | None, settings: StageSettings
) -> tuple[Literal["A", "B"] | None, str]:
    """Type A, B or none, and why."""
    rises = "the LLC rises" if delta_llc > 0 else "the LLC falls"
    if changed is None:
        return None, f"{rises}; the loss, with its error, is not known at both ends"
    delta, error = changed
    significant = abs(delta) > settings.min_z * error
    if delta_llc > 0:
        if delta < 0 and significant:
            return "A", f"{rises} and the loss falls"
        return None, f"{rises} but the loss does not fall" + ("" if significant else " beyond its error")
    if not significant:
        return "B", f"{rises} and the loss does not change beyond its error"
    share = abs(delta) / (np.nanmax(curve.loss) - np.nanmin(curve.loss))
    slight = share <= settings.slight_loss_share
    words = f"the loss changes by {share:.1%} of its range over the run"
    return ("B", f"{rises} and {words}") if slight else (None, f"{rises} but {words}: not slightly")
