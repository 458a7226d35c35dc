"""Moves of a curve from level to level: where it turns, and where each move starts and ends, path by path.

All of it is for `llc.stages`, whose text opens with the method.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llc.smoothing import Floats, Paths

Ints = NDArray[np.intp]

ROUNDS = 3  # levels give ends, and ends better levels


@dataclass(frozen=True)
class Moves:
    """ends: (2, draws, moves), the x where each move starts and ends; levels: (draws, moves + 1), before, between and
    after them.
    """

    ends: Floats
    levels: Floats

    @property
    def count(self) -> int:
        """Moves."""
        return self.ends.shape[2]

    @property
    def changes(self) -> Floats:
        """From level to level: (draws, moves)."""
        return np.diff(self.levels, axis=1)

    @property
    def directions(self) -> Floats:
        """1 up, −1 down."""
        return np.sign(np.median(self.changes, axis=0))


def turning_points(values: Floats, least: float, min_z: float) -> list[int]:
    """The points between which the mean of paths (draws, points) goes one way; none if it goes nowhere.

    A turn counts once the way back is beyond `least` by `min_z` standard deviations.
    """
    mean = values.mean(axis=0)

    def parted(above: int, below: int) -> bool:
        way = values[:, above] - values[:, below]
        return bool(way.mean() - least > min_z * way.std())

    points: list[int] = []
    rising: bool | None = None
    top = bottom = 0  # since the last turning point
    for i in range(1, len(mean)):
        top, bottom = (i if mean[i] > mean[top] else top), (i if mean[i] < mean[bottom] else bottom)
        if rising is not False and top < i and parted(top, i):
            points.append(top)
            rising, bottom = False, i
        elif rising is not True and bottom < i and parted(i, bottom):
            points.append(bottom)
            rising, top = True, i
    return [*points, top if rising else bottom] if points else []


def fit_moves(paths: Paths, points: list[int], share: float) -> Moves:
    """A move between every two of these points. It starts where `share` of its change is done for the last time before
    its middle, and ends where all but that is done for the first time after.
    """
    if not points:
        return Moves(np.zeros((2, len(paths.value), 0)), paths.value.mean(axis=1, keepdims=True))
    fit = _Fit(paths, points)
    fit.find_middles()
    ends = fit.ends(share)
    for _ in range(ROUNDS):
        fit.find_levels(share)
        fit.find_middles()
        ends = fit.ends(share)
    return Moves(ends, fit.levels)


class _Fit:
    """Levels, middles and ends of the moves of all paths, made better in turn. Places are indices of the paths' x.

    A move is looked for between the points before and after its own, a level between those beside it: so all of them
    together cost what the curve is long, however many there are.
    """

    def __init__(self, paths: Paths, points: list[int]) -> None:
        self._x, self._y, self._points = paths.x, paths.value, points
        self._paths, self._moves = np.arange(len(paths.value)), range(len(points) - 1)
        # Those of all paths together: at a curve's end a single one may be anywhere.
        self.levels = np.tile(np.median(paths.value[:, points], axis=0), (len(paths.value), 1))
        shape = len(paths.value), len(self._moves)
        self._middles = np.zeros(shape, dtype=np.intp)
        self._widths = np.convolve(np.diff(self._x), [0.5, 0.5])

    def find_middles(self) -> None:
        """Where a move is half done, first."""
        for move in self._moves:
            first, last = self._points[move], self._points[move + 1]
            is_half = self._done(move, first, last + 1) >= 0.5
            middle = np.where(is_half.any(axis=1), is_half.argmax(axis=1), (last - first) // 2)
            self._middles[:, move] = first + middle

    def ends(self, share: float) -> Floats:
        """The x where moves start and end, (2, draws, moves)."""
        ends = np.zeros((2, *self._middles.shape))
        for move in self._moves:
            low, high = self._between(move - 1, move + 2)
            done, place, middle = self._done(move, low, high), np.arange(low, high), self._middles[:, move, None]
            after, before = self._beside(move)
            is_low = (done <= share) & (place <= middle) & (place >= after[:, None])
            start = np.where(is_low.any(axis=1), high - 1 - is_low[:, ::-1].argmax(axis=1), after)
            is_high = (done >= 1 - share) & (place >= middle) & (place <= before[:, None])
            stop = np.where(is_high.any(axis=1), low + is_high.argmax(axis=1), before)
            ends[0, :, move] = self._crossing(move, start, share)
            ends[1, :, move] = self._crossing(move, stop - 1, 1 - share)
        return ends

    def find_levels(self, share: float) -> None:
        """Means of the paths where they are within `share` of the smaller change beside a level."""
        changes = np.abs(np.diff(self.levels, axis=1))
        for level in range(len(self._moves) + 1):
            low, high = self._between(level - 1, level + 1)
            y, place = self._y[:, low:high], np.arange(low, high)
            after = self._middles[:, level - 1] if level else np.zeros_like(self._paths)
            before = self._middles[:, level] if level < len(self._moves) else np.full_like(after, len(self._x) - 1)
            within = share * changes[:, max(0, level - 1) : level + 1].min(axis=1)
            is_near = np.abs(y - self.levels[:, level, None]) <= within[:, None]
            is_near &= (place >= after[:, None]) & (place <= before[:, None])
            weight = is_near * self._widths[low:high]
            total = weight.sum(axis=1)
            mean = (weight * y).sum(axis=1) / np.where(total > 0, total, 1)
            self.levels[:, level] = np.where(total > 0, mean, self.levels[:, level])

    def _between(self, first: int, last: int) -> tuple[int, int]:
        """The places from one point to another, both of them in; to the curve's ends, where there is no such point or
        it is the outermost.
        """
        count = len(self._points)
        return self._points[first] if first > 0 else 0, self._points[last] + 1 if last < count - 1 else len(self._x)

    def _done(self, move: int, low: int, high: int) -> Floats:
        """The share of a move's change that is done, at these places."""
        return (self._y[:, low:high] - self.levels[:, move, None]) / self._change(move)[:, None]

    def _change(self, move: int) -> Floats:
        change = self.levels[:, move + 1] - self.levels[:, move]
        return np.where(change == 0, 1e-300, change)

    def _beside(self, move: int) -> tuple[Ints, Ints]:
        """The middles of the moves before and after, or the curve's ends."""
        after = self._middles[:, move - 1] if move else np.zeros_like(self._paths)
        is_last = move == len(self._moves) - 1
        return after, np.full_like(self._paths, len(self._x) - 1) if is_last else self._middles[:, move + 1]

    def _crossing(self, move: int, left: Ints, share: float) -> Floats:
        """The x between a place and the next one where this share is reached, if it is."""
        left = np.clip(left, 0, len(self._x) - 2)
        level, change = self.levels[:, move], self._change(move)
        low, high = ((self._y[self._paths, place] - level) / change for place in (left, left + 1))
        part = np.clip((share - low) / np.where(high == low, 1, high - low), 0, 1)
        return self._x[left] + part * (self._x[left + 1] - self._x[left])
