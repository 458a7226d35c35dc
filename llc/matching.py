"""Which transitions of several runs are the same one: their common sequence, by alignment.

A run is its transitions in the order of training, each with ends s and e on an axis x and a ΔLLC; a common transition
has the medians S, E, D of those. That transition i of a run, shifted by τ, is common transition k costs

    c_ik = log(1 + ((s_i − τ − S_k)² + (e_i − τ − E_k)²) / 2σ²) + log(1 + (log|ΔLLC_i| − log|D_k|)² / (ω² + ε_i²))

and ∞ if one rises and the other falls (an A rises and a B falls, so types say no more); ε_i is the relative error of
ΔLLC_i. To have no counterpart costs γ, on either side. Of all ways to match in order the cheapest is taken
(`llc.needleman_wunsch`).

1. The first common sequence is the run that costs the others least (the medoid).
2. All runs are aligned with it. It takes the medians of what was matched, loses what fewer than half of the runs have,
   and gains what half of them have besides; σ and ω become the robust spreads of what was matched. Again, until nothing
   changes.
3. With the sequence found, all are aligned once more at a larger γ, to call a match that is far off late, or large.
4. The shift of a run is the median of x_i − X_k over its matches, if there are two. On x = log(step + 1) exp(τ) is its
   *tempo*, how many times as long it takes as the usual run.

The logarithms in c keep what is far off from deciding on the rest. Both ends are in c, and with them how far two
transitions overlap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llc.needleman_wunsch import Alignments
from llc.summaries import ROBUST

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Axis = Literal["step", "loss"]
Type = Literal["A", "B"]

FIRST_GAP = 1.5  # γ: two gaps are as dear as a match that is four σ off, so that what is common is found by clear ones
GAP = 2.5  # at the end, as dear as twelve σ: what is far off is late, or large, rather than missing and extra
FIRST_SPREADS = 0.6, 0.4  # σ, of log(step + 1), and ω, of log|ΔLLC|, before they are known
LEAST_SPREADS = 0.2, 0.3  # however alike the other runs are, a transition may be late and still be the same one
MOST_SPREADS = 0.7, 0.7  # a factor of two
RESOLVED = 0.05, 0.1  # the least of the same for `z`: what checkpoints and chains resolve
FIRST_SHIFTS = np.log(2) * np.arange(-3, 3.1, 0.75)  # tried first: from an eighth of the time to eight times as long
SHIFT_SPREAD = 0.5  # a first shift costs log(1 + (τ / SHIFT_SPREAD)²), so that none is made up
MIN_FOR_SHIFT = 2  # matches: of one, nobody can tell a slow run from a late transition
LOSS_RANGE = 5.0  # in units of log(step + 1), what twice the interquartile range of the losses counts for
LEAST_SIZE = 1e-300  # of that range: nothing is divided by less
MAX_MEDOIDS, MAX_GAINS = 12, 100  # runs that are tried as the first sequence, and transitions that are as more of it
MAX_ROUNDS, GAIN_ROUNDS = 8, 3  # of step 2; the rounds after GAIN_ROUNDS only lose. Twice as many change hardly any


@dataclass(frozen=True)
class Transition:
    """Of a run. from_loss, to_loss: the losses at its ends, if they are the axis. Sizes: 1e±100, ΔLLC not 0."""

    from_step: int
    to_step: int
    delta_llc: float
    delta_llc_std_error: float | None = None
    delta_loss: float | None = None
    type: Type | None = None
    from_loss: float | None = None
    to_loss: float | None = None


class Table(NamedTuple):
    """Transitions: ends on the axis, (..., 2); sign of ΔLLC (0 where there is no transition), log|ΔLLC|, its error."""

    ends: Floats
    sign: Floats
    size: Floats
    error: Floats

    def at(self, index: Any) -> "Table":
        """Some of them."""
        return Table(*(column[index] for column in self))


class Matching:
    """Of runs with their common sequence.

    table: a row a run; unit: what a loss is multiplied by to stand for a log(step + 1), where it is the axis;
    common: (k,), its medians; matched: (runs, k), which transition of the run it is, or −1; tempo: (runs,), log of it,
    NaN where it isn't known; shift: the same, 0 there; off: (runs, k, 2), how far a match is off in place and in
    log|ΔLLC|, NaN where there is none; spreads: σ and ω.
    """

    def __init__(self, runs: Sequence[Sequence[Transition]], axis: Axis) -> None:
        """Of one run or more, each given by its transitions in the order of training."""
        self.can_shift = axis == "step"
        self.unit = 1.0 if axis == "step" else _loss_unit(runs)
        self.table = _table(runs, axis, self.unit)
        self.real = self.table.sign != 0
        self.rows = np.arange(len(self.real))
        self.least = min(len(self.rows), max(2, math.ceil(len(self.rows) / 2)))
        self.spreads = np.array(FIRST_SPREADS)
        self.gap = FIRST_GAP
        self.common = self._medoid()
        self._match(FIRST_SHIFTS[:, None] if self.can_shift else np.zeros((1, 1)))
        for round_ in range(MAX_ROUNDS):
            before = self.matched
            has_gained = round_ < GAIN_ROUNDS and self._gain()
            self._match(self.shift[None])
            if np.array_equal(before, self.matched) and not has_gained:
                break
        self.gap = GAP
        self._match(self.shift[None])

    @property
    def z(self) -> Floats:
        """`off` in standard deviations, without sign: the larger of a common transition's own and of all together."""
        if not self.matched.size:
            return self.off
        together = np.maximum(robust(self.off.reshape(-1, 2)), RESOLVED)
        spreads = np.maximum(robust(self.off), together) * np.ones(self.off.shape)
        spreads[..., 1] = np.hypot(spreads[..., 1], self.table.error[self.rows[:, None], self.matched])
        return np.abs(self.off) / spreads

    @property
    def is_extra(self) -> Bools:
        """Of each transition of the table, whether it has no counterpart in the common sequence."""
        found = np.pad(self.real, ((0, 0), (0, 1)))
        found[self.rows[:, None], self.matched] = False  # −1 is the column that was added
        return found[:, :-1]

    def _medoid(self) -> Table:
        tried = _some(len(self.rows), MAX_MEDOIDS)
        cost = self._cost(self.table, self.table.at((tried, None)))
        totals = Alignments(cost, self.gap * self.real, self.gap * self.real[tried, None]).total
        medoid = tried[np.argmin(totals.sum(axis=1))]
        return self.table.at((medoid, self.real[medoid]))

    def _cost(self, of: Table, to: Table) -> Floats:
        """c of transitions (..., i) and (..., k): (..., i, k)."""
        place = np.square(of.ends[..., :, None, 0] - to.ends[..., None, :, 0])
        place += np.square(of.ends[..., :, None, 1] - to.ends[..., None, :, 1])
        size = np.square(of.size[..., :, None] - to.size[..., None, :])
        size /= (self.spreads[1] ** 2 + np.square(of.error))[..., None]
        cost = np.log((1 + place / (2 * self.spreads[0] ** 2)) * (1 + size))
        return np.where(of.sign[..., :, None] == to.sign[..., None, :], cost, np.inf)

    def _match(self, shifts: Floats) -> None:
        """Align every run, at the best of its shifts (tried, runs), and learn from it."""
        table = Table(*(np.broadcast_to(column, (len(shifts), *column.shape)) for column in self.table))
        cost = self._cost(table._replace(ends=table.ends - shifts[..., None, None]), self.common)
        alignments = Alignments(cost, self.gap * self.real, np.full(len(self.common.sign), self.gap))
        totals = alignments.total
        if len(shifts) > 1:
            totals = totals + np.log1p(np.square(shifts / SHIFT_SPREAD))
        best: Ints = np.argmin(totals, axis=0)
        ways = alignments.matched(best, self.rows)
        keep = np.sum(ways >= 0, axis=0) >= self.least
        self.matched, self.common = ways[:, keep], self.common.at(keep)
        self._learn(np.broadcast_to(shifts, totals.shape)[best, self.rows])

    def _learn(self, shift: Floats) -> None:
        """Medians, tempos and spreads of what is matched."""
        self.tempo, self.shift = np.full(len(self.rows), np.nan), np.zeros(len(self.rows))
        if not self.matched.size:
            self.off = np.zeros((*self.matched.shape, 2))
            return
        found = self.table.at((self.rows[:, None], self.matched))
        missing = np.less(self.matched, 0)
        ends = np.where(missing[..., None], np.nan, found.ends)
        size = np.where(missing, np.nan, found.size)
        if self.can_shift:
            place = _median(ends - shift[:, None, None])
            enough = np.sum(~missing, axis=1) >= MIN_FOR_SHIFT
            tempo = np.where(enough, _median((ends - place).mean(axis=2).T), np.nan)
            self.tempo = tempo - _median(tempo)
            self.shift = np.nan_to_num(self.tempo)
        ends = ends - self.shift[:, None, None]
        self.common = self.common._replace(ends=_median(ends), size=_median(size))
        self.off = np.stack([(ends - self.common.ends).mean(axis=2), size - self.common.size], axis=2)
        self.spreads = np.clip(robust(self.off.reshape(-1, 2)), LEAST_SPREADS, MOST_SPREADS)

    def _gain(self) -> bool:
        """Add to the sequence what at least half of the runs have besides, the commonest first."""
        rows, items = np.nonzero(self.is_extra)
        if len(np.unique(rows)) < self.least:
            return False
        extra = self.table.at((rows, items))
        extra = extra._replace(ends=extra.ends - self.shift[rows, None])
        tried = _some(len(rows), MAX_GAINS)
        cost = self._cost(extra, extra.at(tried))
        near, total = cost < 2 * self.gap, np.minimum(cost, 2 * self.gap).sum(axis=0)
        runs = np.flatnonzero(np.diff(rows, prepend=-1))
        gained: list[int] = []
        while True:
            support = np.logical_or.reduceat(near, runs, axis=0).sum(axis=0)
            best = int(np.lexsort((total, -support))[0])
            if support[best] < self.least:
                break
            gained.append(int(tried[best]))
            near[near[:, best]] = False
        self._insert(rows[gained], items[gained], extra.at(gained))
        return bool(gained)

    def _insert(self, rows: Ints, items: Ints, new: Table) -> None:
        """Into the sequence, extra transitions of these runs."""
        middles = new.ends.mean(axis=1)
        places = np.array([self._place(*one) for one in zip(rows, items, middles, strict=True)], int)
        order = np.lexsort((middles, places))
        columns = zip(self.common, new.at(order), strict=True)
        self.common = Table(*(np.insert(old, places[order], ones, axis=0) for old, ones in columns))
        self.matched = np.insert(self.matched, places[order], -1, axis=1)

    def _place(self, row: int, item: int, middle: float) -> int:
        """Where in the sequence a run's extra transition comes: between what is matched before it and after."""
        own = self.matched[row]
        before, after = np.flatnonzero((own >= 0) & (own < item)), np.flatnonzero(own > item)
        low, high = (int(before[-1]) + 1 if len(before) else 0), (int(after[0]) if len(after) else len(own))
        return low + int(np.searchsorted(self.common.ends[low:high].mean(axis=1), middle))


def _some(count: int, most: int) -> Ints:
    """Of so many, evenly, at most `most`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _loss_unit(runs: Sequence[Sequence[Transition]]) -> float:
    """What a loss is multiplied by to stand for a log(step + 1); by quartiles, since one run's may be anything."""
    losses = [loss for run in runs for t in run for loss in (t.from_loss, t.to_loss) if loss is not None]
    if not losses:
        return 1.0
    low, high = np.quantile(losses, [0.25, 0.75])
    size = max(2 * float(high - low), 1e-9 * float(np.median(np.abs(losses))))
    return LOSS_RANGE / size if size > LEAST_SIZE else 1.0


def _table(runs: Sequence[Sequence[Transition]], axis: Axis, unit: float) -> Table:
    """A row a run, the shorter ones filled up."""
    real = np.arange(max(map(len, runs))) < np.array([len(run) for run in runs])[:, None]
    flat = [transition for run in runs for transition in run]
    delta = np.array([t.delta_llc for t in flat], float)
    error = np.array([t.delta_llc_std_error or 0.0 for t in flat], float)
    if axis == "step":
        ends = np.log1p(np.array([(t.from_step, t.to_step) for t in flat], float))
    else:
        ends = -unit * np.array([(t.from_loss, t.to_loss) for t in flat], float)  # so that later is larger
    sign, size, relative = (np.zeros(real.shape) for _ in range(3))
    table = Table(np.zeros((*real.shape, 2)), sign, size, relative)
    found = ends.reshape(-1, 2), np.sign(delta), np.log(np.abs(delta)), np.minimum(error, np.abs(delta)) / np.abs(delta)
    for column, values in zip(table, found, strict=True):
        column[real] = values
    return table


def robust(off: Floats) -> Floats:
    """Standard deviation about 0, over the first axis, from the median of what is known."""
    return ROBUST * _median(np.abs(off))


def _median(values: Floats) -> Floats:
    """Over the first axis, of what is known; NaN where nothing is. (numpy's takes ten times as long on small ones.)"""
    ordered, known = np.sort(values, axis=0), np.isfinite(values).sum(axis=0)
    column = np.indices(known.shape, sparse=True)  # last in it are NaNs: of none, both are the last
    return (ordered[(known - 1) // 2, *column] + ordered[known // 2, *column]) / 2
