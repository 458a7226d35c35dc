"""A curve of the local learning coefficient read into plateaus and transitions, with probabilities and intervals.

The method, in x = log(step + c):

1. *Paths.* Draws of the LLC's curve and of the loss's from their joint posterior (`llc.smoothing`). All that follows is
   done on paths; a probability is a share of them, an error their standard deviation, an interval their quantiles.
2. *Turning points* (hysteresis on the mean path). The curve has turned once it has come back from its extreme since the
   last turn by more than δ = `min_share` of its range, beyond `min_z` standard deviations of that difference.
3. *Levels and ends.* Between two turning points the curve goes one way, from level to level. A transition starts where
   `plateau_share` of its change is done for the last time before its middle, and ends where all but that share is done
   for the first time after. What lies between two transitions is a plateau; its level is the path's mean where that is
   within `plateau_share` of the smaller change beside it.
4. *Near-plateaus.* A move with a flat part a … b inside is two transitions: in half of the paths or more the slope
   there is less than half of the slower side's, each side changes by δ, and the part lasts a tenth of that side or
   more. The flattest parts are taken first.
5. *Types*, path by path. A: the LLC rises by δ and the loss falls. B: the LLC falls by δ and the loss changes only
   slightly: by at most `slight_loss_share` of the largest change of the loss in another transition in which the LLC
   rises, or, without one, of its range over the run; or by less than `UNSEEN_LOSS` standard errors of this change.
   Neither: all else. A transition has a type that has `min_probability`.
6. *Intervals* of both ends hold 90 %. What happens between two checkpoints nobody sees, and a path's shape there is the
   process's, not the network's: so each side of an interval is made wider by `WIDENING`, and, in squares, by `UNSEEN`
   of the checkpoints' distance. The two numbers were set on planted curves; `make bench-stages` tests them on others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llc.moves import Moves, fit_moves, turning_points
from llc.settings import StageSettings
from llc.smoothing import Floats, Paths, Points, SharedNoise, shared_noise, smooth
from llc.summaries import INTERVAL, around

Ints = NDArray[np.int64]
Type = Literal["A", "B"]

LIKELY = 0.5
FLAT_SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the slope beside it, below which a part of a move is flat
FLAT_LENGTH = 0.1  # of the side, in x, which a flat part has to last
FLAT_CANDIDATES = 50  # ends of flat parts that are tried in a move
WIDENING = 1.2
UNSEEN = 0.3
UNSEEN_LOSS = 3.0
FOLLOWED = 5.0  # errors that the paths are away from an LLC, at most, which they have not taken for wrong
MEDIAN_ERROR = 1.13  # four chains' standard errors have a median of 1/1.13 of the true one: √(median of χ²₃ / 3)
OWN_DOF, AROUND_DOF = 3, 8  # what a point's own standard error counts for, and the median of those around it


@dataclass(frozen=True)
class Stage:
    """A stretch of training: a plateau, or a transition between two.

    from_step and to_step are medians of the paths, low … high hold 90 % of them; probabilities are of a transition's
    types. A transition's ΔLLC is between the levels of the plateaus at its ends, its Δloss between the checkpoints
    around them; all other changes are from start to end. None where the curve does not say. details: numbers behind the
    reading, such as a plateau's level, and `steps_wanted`, where one more checkpoint would tell most of a transition's
    ends. survival: the share of an ensemble's members that have the transition (`llc.stability`); None without one.
    """

    kind: Literal["plateau", "transition"]
    type: Type | None
    from_step: int
    from_step_low: int
    from_step_high: int
    to_step: int
    to_step_low: int
    to_step_high: int
    probability_a: float | None
    probability_b: float | None
    probability_neither: float | None
    delta_llc: float
    delta_llc_std_error: float
    delta_loss: float | None
    delta_loss_std_error: float | None
    reason: str
    survival: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """What stages are read from, a row a checkpoint, by increasing step; NaN or infinity where there is no value.

    per_chain: (checkpoints, chains), the chains' own LLCs, from which the noise that neighbours share is known.
    """

    step: Ints
    llc: Floats
    llc_std_error: Floats
    loss: Floats
    loss_std_error: Floats
    per_chain: Floats | None = None

    @staticmethod
    def of(
        step: Sequence[int],
        llc: Sequence[float | None],
        llc_std_error: Sequence[float | None],
        loss: Sequence[float | None],
        loss_std_error: Sequence[float | None],
        per_chain: Sequence[Sequence[float | None] | None] | None = None,
    ) -> "Curve":
        """From lists, as JSON has them: None where there is no value. Chains count where all points have as many."""
        chains = max((len(row) for row in per_chain or () if row), default=0)
        rows = [row if row and len(row) == chains else [None] * chains for row in per_chain or ()]
        return Curve(
            np.array(step, dtype=np.int64),
            np.array(llc, dtype=np.float64),
            np.array(llc_std_error, dtype=np.float64),
            np.array(loss, dtype=np.float64),
            np.array(loss_std_error, dtype=np.float64),
            np.array(rows, dtype=np.float64) if chains else None,
        )

    def where(self, keep: NDArray[np.bool_]) -> "Curve":
        """Some of the checkpoints."""
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        return replace(self, **{name: column[keep] for name, column in columns.items() if column is not None})


def read_stages(curve: Curve, settings: StageSettings) -> list[Stage]:
    """The plateaus and transitions of a curve, in the order of training, end to end.

    A checkpoint without an LLC and its error is left out; without three that have them, there are no stages.
    """
    curve = curve.where(np.isfinite(curve.llc) & np.isfinite(curve.llc_std_error))
    if len(curve.step) < 3:
        return []
    return _Reading(curve, settings).stages()


def _errors(curve: Curve) -> Floats:
    """Standard errors of the LLC. One from a handful of chains is small or large by luck: the median of those around it
    counts as well. Errors of zero have weights too.
    """
    s = curve.llc_std_error
    usual = MEDIAN_ERROR * np.nanmedian(around(s, 9), axis=1)
    pooled = np.sqrt((OWN_DOF * s**2 + AROUND_DOF * usual**2) / (OWN_DOF + AROUND_DOF))
    return np.maximum(pooled, _least_error(curve.llc))


def _least_error(y: Floats) -> float:
    """Of values whose own may be 0: a share of their range, in which a few that are wild don't count for much."""
    return max(1e-6 * float(np.ptp(np.nanmedian(around(y, 7), axis=1))), 1e-15 * float(np.ptp(y)), 1e-100)


class _Reading:
    """Of one curve."""

    def __init__(self, curve: Curve, settings: StageSettings) -> None:
        self.curve, self.settings = curve, settings
        x = np.log(curve.step + settings.step_offset)
        # Beyond 2⁵³ two steps may be one number.
        self.x = x[0] + np.concatenate([[0.0], np.cumsum(np.maximum(np.diff(x), 1e-12))])
        generator = np.random.default_rng(settings.seed)
        shared = SharedNoise() if curve.per_chain is None else shared_noise(curve.per_chain)
        errors = _errors(curve)
        self.llc, self.loss = self._paths(Points(curve.llc, errors, shared), generator)
        self.seen = self._believed(errors)
        self.least = settings.min_share * float(np.ptp(self.llc.value.mean(axis=0)))
        self.loss_span = float(np.ptp(self.loss.value.mean(axis=0))) if self.loss else np.nan
        self.moves = self._moves()
        self.loss_changes = [self._loss_change(*self._seen(move)) for move in range(self.moves.count)]

    def _paths(self, llc: Points, generator: np.random.Generator) -> tuple[Paths, Paths | None]:
        """Of the LLC, and of the loss as far as it is known; None if that is at fewer than three checkpoints."""
        loss, s = self.curve.loss, self.curve.loss_std_error
        known = np.isfinite(loss) & np.isfinite(s)
        if known.sum() < 3:
            return smooth(self.x, [llc], generator)[0], None
        beside = Points(np.where(known, loss, np.nan), np.maximum(s, _least_error(loss[known])))
        paths, loss_paths = smooth(self.x, [llc, beside], generator)
        return paths, loss_paths.between(*self.x[known][[0, -1]])

    def _moves(self) -> Moves:
        """One between every two turning points, and more where a move has a near-plateau."""
        points = turning_points(self.llc.at_points, self.least, self.settings.min_z)
        points = [point * self.llc.stride for point in points]
        whole = set[tuple[int, int]]()  # between these points there is no near-plateau
        while True:
            moves = fit_moves(self.llc, points, self.settings.plateau_share)
            flat: set[int] = set()
            for move, ends in enumerate(pairwise(points)):
                at = None if ends in whole else self._flat_part(moves, move)
                if at is None or at in points:
                    whole.add(ends)
                else:
                    flat.add(at)
            if not flat:
                return moves
            points = sorted(flat.union(points))

    def _flat_part(self, moves: Moves, move: int) -> int | None:
        """The place, among the paths' x, of the middle of a move's flattest part, if it has one."""
        x, y = self.llc.x, self.llc.value * moves.directions[move]
        first, last = np.searchsorted(x, np.median(moves.ends[:, :, move], axis=1)).clip(0, len(x) - 1)
        places = np.unique(np.linspace(first, last, min(last - first + 1, FLAT_CANDIDATES)).round().astype(int))
        if len(places) < 4:
            return None
        i, j = np.triu_indices(len(places) - 2, k=1)
        x, y, i, j = x[places], y[:, places], i + 1, j + 1
        change_in, change, change_out = y[:, i] - y[:, :1], np.abs(y[:, j] - y[:, i]), y[:, -1:] - y[:, j]
        slope_in, slope_out = change_in / (x[i] - x[0]), change_out / (x[-1] - x[j])
        slower, length = np.minimum(slope_in, slope_out), x[j] - x[i]
        side = np.where(slope_in < slope_out, x[i] - x[0], x[-1] - x[j])
        fair = (np.minimum(change_in, change_out) > self.least) & (length > FLAT_LENGTH * side)
        for share in FLAT_SHARES:
            is_flat = (fair & (change < share * slower * length)).mean(axis=0) >= LIKELY
            if is_flat.any():
                missing = (slower * length - change).mean(axis=0)
                best = int(np.argmax(np.where(is_flat, missing, -np.inf)))
                return int(places[i[best]] + places[j[best]]) // 2
        return None

    def stages(self) -> list[Stage]:
        """Plateaus and transitions, end to end."""
        first, last = (np.full(len(self.llc.value), end) for end in self.x[[0, -1]])
        stages: list[Stage] = []
        start = first
        for move in range(self.moves.count):
            stages += self._plateau(start, self.moves.ends[0, :, move], self.moves.levels[:, move])
            stages.append(self._transition(move))
            start = self.moves.ends[1, :, move]
        return stages + self._plateau(start, last, self.moves.levels[:, -1])

    def _plateau(self, start: Floats, stop: Floats, level: Floats) -> list[Stage]:
        place = self._place(start, stop)
        if place["from_step"] >= place["to_step"]:
            return []
        lengths = np.maximum(stop - start, 1e-9)
        change = (self.llc.at(stop[:, None]) - self.llc.at(start[:, None]))[:, 0]
        changes = abs(change.mean()) > self.settings.min_z * change.std() and abs(change.mean()) > self.least
        words = f"changes by {abs(change.mean()):.3g}" if changes else "does not change beyond its noise"
        slope = change / lengths
        details = {
            "llc": float(level.mean()),
            "llc_std_error": float(level.std()),
            "slope": float(np.median(slope)),
            "slope_std_error": float(np.subtract(*np.percentile(slope, [84, 16])) / 2),
        }
        return [
            Stage(
                kind="plateau",
                type=None,
                **place,
                **_none_of(PROBABILITIES),
                **_moments("delta_llc", change),
                **_moments("delta_loss", self._loss_change(start, stop)),
                reason=f"from its start to its end the LLC {words}",
                details=details,
            )
        ]

    def _transition(self, move: int) -> Stage:
        start, stop = self.moves.ends[:, :, move]
        change, loss = self.moves.changes[:, move], self.loss_changes[move]
        type_, probabilities, reason = self._judge(move, loss)
        before, after = self.moves.levels[:, move], self.moves.levels[:, move + 1]
        place = self._place(start, stop)
        return Stage(
            kind="transition",
            type=type_,
            **place,
            **probabilities,
            **_moments("delta_llc", change),
            **_moments("delta_loss", loss),
            reason=reason,
            details={
                "llc_before": float(before.mean()),
                "llc_after": float(after.mean()),
                "steps_wanted": self._steps_wanted(place),
            },
        )

    def _steps_wanted(self, place: dict[str, int]) -> list[int]:
        """Where one more checkpoint would tell most of either end: in the middle of the widest gap between checkpoints
        that its interval reaches into, if that is half of the interval or more.
        """
        wanted = set[int]()
        for end in ("from_step", "to_step"):
            low, high = (np.log(place[f"{end}_{side}"] + self.settings.step_offset) for side in ("low", "high"))
            reached = (self.x[1:] > low) & (self.x[:-1] < high)
            gaps = np.where(reached, np.diff(self.x), 0)
            widest = int(np.argmax(gaps))
            step = self._step(float(self.x[widest] + self.x[widest + 1]) / 2)
            if 0 < gaps[widest] >= (high - low) / 2 and step not in self.curve.step:
                wanted.add(step)
        return sorted(wanted)

    def _place(self, start: Floats, stop: Floats) -> dict[str, int]:
        """Steps of both ends, and of their intervals."""
        steps: dict[str, int] = {}
        for name, end in (("from_step", start), ("to_step", stop)):
            middle, low, high = (float(np.quantile(end, share)) for share in (0.5, *INTERVAL))
            if low < high:
                after = int(np.clip(np.searchsorted(self.x, middle), 1, len(self.x) - 1))
                unseen = UNSEEN * (self.x[after] - self.x[after - 1])
                low = middle - np.hypot(WIDENING * (middle - low), unseen)
                high = middle + np.hypot(WIDENING * (high - middle), unseen)
            steps |= {name: self._step(middle), f"{name}_low": self._step(low), f"{name}_high": self._step(high)}
        return steps

    def _step(self, x: float) -> int:
        return int(np.clip(round(np.exp(x) - self.settings.step_offset), *self.curve.step[[0, -1]]))

    def _loss_change(self, start: Floats, stop: Floats) -> Floats | None:
        """From start to stop, path by path; None where the loss is not known there."""
        if self.loss is None or np.median(start) < self.loss.x[0] or np.median(stop) > self.loss.x[-1]:
            return None
        return np.diff(self.loss.at(np.stack([start, stop], axis=1)), axis=1)[:, 0]

    def _seen(self, move: int) -> tuple[Floats, Floats]:
        """The checkpoints around a move's ends, path by path. Where in a gap between checkpoints the LLC has changed,
        and where the loss, nobody has seen: what both did in the gap belongs together.
        """
        start, stop = self.moves.ends[:, :, move]
        before = np.clip(np.searchsorted(self.seen, start, side="right") - 1, 0, None)
        return self.seen[before], self.seen[np.clip(np.searchsorted(self.seen, stop), None, len(self.seen) - 1)]

    def _believed(self, errors: Floats) -> Floats:
        """x of the checkpoints whose LLC was not taken for wrong, and of the first and the last."""
        off = np.abs(self.curve.llc - self.llc.at_points.mean(axis=0))
        is_followed = off < FOLLOWED * np.hypot(errors, self.llc.at_points.std(axis=0))
        is_followed[[0, -1]] = True
        return self.x[is_followed]

    def _judge(self, move: int, loss: Floats | None) -> tuple[Type | None, dict[str, float | None], str]:
        """A transition's type, the probability of each, and why."""
        change = self.moves.changes[:, move]
        rises = "the LLC rises" if np.median(change) > 0 else "the LLC falls"
        if loss is None:
            return None, _none_of(PROBABILITIES), f"{rises}; the loss, with its error, is not known at both ends"
        yardstick = self._yardstick(move)
        a = float(np.mean((change > self.least) & (loss < 0)))
        slight = np.maximum(self.settings.slight_loss_share * yardstick, UNSEEN_LOSS * loss.std())
        b = float(np.mean((change < -self.least) & (np.abs(loss) <= slight)))
        # Shares of the paths, which 1 − a − b may miss by a bit below 0.
        neither = round((1 - a - b) * len(change)) / len(change)
        probabilities: dict[str, float | None] = dict(zip(PROBABILITIES, (a, b, neither), strict=True))
        type_: Type | None = "A" if a >= self.settings.min_probability else None
        type_ = "B" if b >= self.settings.min_probability else type_
        if np.median(change) > 0:
            falls = float(np.mean(loss < 0))
            return type_, probabilities, f"{rises} and the loss falls, in {falls:.1%} of the paths"
        share = float(np.median(np.abs(loss) / np.where(yardstick > 0, yardstick, 1.0)))
        slightly = f"slightly in {b:.1%} of the paths"
        return type_, probabilities, f"{rises} and the loss changes by {share:.1%} of its change elsewhere: {slightly}"

    def _yardstick(self, move: int) -> Floats:
        """The largest change of the loss in another transition in which the LLC rises; without one, its range."""
        largest = np.zeros(len(self.llc.value))
        for other, loss in enumerate(self.loss_changes):
            if other != move and loss is not None:
                largest = np.maximum(largest, np.where(self.moves.changes[:, other] > self.least, np.abs(loss), 0))
        return np.where(largest > 0, largest, self.loss_span)


PROBABILITIES = ("probability_a", "probability_b", "probability_neither")


def _none_of(names: Sequence[str]) -> dict[str, float | None]:
    return dict.fromkeys(names)


def _moments(name: str, values: Floats | None) -> dict[str, Any]:
    """A change and its standard error."""
    found = (None, None) if values is None else (float(values.mean()), float(values.std()))
    return dict(zip((name, f"{name}_std_error"), found, strict=True))
