"""Curves with planted stages: what a reader of stages is tried on, with the truth beside it.

A curve has 0 to 7 transitions over an uneven schedule of 40 to 300 checkpoints, each with a shape of its own (straight,
smooth, logistic, a relaxation, a beta distribution's), type A or B; between them plateaus that drift a little, turning
points without one, and near-plateaus. With `neither`, three in ten are of neither type: the LLC falls and so does the
loss, by as much as at an A, or both rise; and in half of the curves the loss has a large error, the same at every
checkpoint, as of few samples. The noise is a share of the smallest transition's ΔLLC (root mean square over the
curve), in half of the curves it follows the level, in half neighbours share it; standard errors are those of four
chains. In a third, some points are missing, or wrong, whether their errors say so or not.

What is true of a curve is defined as the reader defines it, on the noiseless curve: a transition lasts from where 5 %
of its change is done to where all but 5 % is (`llc.stages`, 3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.special import betainc

from llc.settings import StageSettings
from llc.smoothing import Floats
from llc.stages import Curve

MAX_STAGES = 7
NUM_CHAINS = 4
END_SHARE = StageSettings().plateau_share
NEITHER_SHARE = 0.3
FEW_SAMPLES = 0.1
"""Of the loss's range: its error where it comes of few samples."""
FINE = 20_001
"""Places of the noiseless curve."""

Type = Literal["A", "B"]
Shape = Callable[[Floats], Floats]
"""From 0 at 0 to 1 at 1."""


class Transition(NamedTuple):
    """start, stop: in log(step + 1)."""

    start: float
    stop: float
    delta_llc: float
    delta_loss: float
    type: Type | None
    shape: str


@dataclass(frozen=True)
class Planted:
    """A curve and its truth."""

    curve: Curve
    x: Floats
    transitions: Sequence[Transition]
    has_shared_noise: bool
    num_near_plateaus: int


def plant(seed: int, noise: float, num_stages: int | None = None, *, neither: bool = False) -> Planted:
    """A curve; with 1 to 7 stages, unless told how many, of type A and B, or, if asked for, of neither type, too."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, MAX_STAGES + 1)) if num_stages is None else num_stages
    while True:
        planted = _Draft(generator, count, neither).planted(noise)
        if planted is not None:
            return planted


def schedule(generator: Generator) -> Floats:
    """Steps from 0 to 10³ … 10⁶: logarithmic, logarithmic and linear together, or logarithmic with gaps."""
    last, count = int(10 ** generator.uniform(3, 6)), int(generator.integers(60, 160))
    kind = generator.integers(3)
    if kind == 0:
        steps = np.geomspace(1, last, count)
    elif kind == 1:
        steps = np.concatenate([np.geomspace(1, last, count // 2), np.linspace(0, last, count // 2)])
    else:
        waves = np.linspace(0, generator.uniform(2, 9), 2 * count) + generator.uniform(0, 6)
        steps = np.geomspace(1, last, 2 * count)
        steps = steps[generator.random(2 * count) < 0.15 + 0.7 * (np.sin(waves) > 0)]
    return np.unique(np.concatenate([[0], steps.round()]))


def shape(generator: Generator) -> tuple[str, Shape]:
    """How one transition goes."""
    kind = str(generator.choice(["straight", "smooth", "logistic", "relaxation", "beta"]))
    if kind == "straight":
        return kind, lambda t: t
    if kind == "smooth":
        return kind, lambda t: t * t * (3 - 2 * t)
    if kind == "logistic":
        steepness = generator.uniform(4, 9)
        low = 1 / (1 + np.exp(steepness / 2))
        return kind, lambda t: (1 / (1 + np.exp(-steepness * (t - 0.5))) - low) / (1 - 2 * low)
    if kind == "relaxation":
        rate = generator.uniform(1.5, 5)
        return kind, lambda t: np.expm1(-rate * t) / np.expm1(-rate)
    a, b = generator.uniform(1, 4, 2)
    return kind, lambda t: betainc(a, b, t)


class _Draft:
    """One attempt: it may not fit into its schedule, or have a type that is not clear."""

    def __init__(self, generator: Generator, count: int, neither: bool) -> None:
        self._random, self.count, self._neither = generator, count, neither
        self.steps = schedule(generator)
        self.x = np.log1p(self.steps)
        self.fine = np.linspace(self.x[0], self.x[-1], FINE)
        self.directions = np.where(generator.random(count) < 0.6, 1.0, -1.0)
        self.types: list[Type | None] = ["A" if up > 0 else "B" for up in self.directions]
        if neither:
            self.types = [kind if generator.random() > NEITHER_SHARE else None for kind in self.types]
        self.goes_on = [k > 0 and up == self.directions[k - 1] for k, up in enumerate(self.directions)] + [False]
        self.num_near_plateaus = 0

    def planted(self, noise: float) -> Planted | None:
        """The curve, with noise."""
        if len(self.steps) < 40 or not self._place():
            return None
        shapes = [shape(self._random) for _ in range(self.count)]
        scale = 10 ** self._random.uniform(0, 2.5)
        llc, loss = scale * self._llc(shapes), self._loss()
        span = float(np.ptp(llc)) if self.count else scale
        llc += span * self._random.uniform(0.1, 1.5) - llc.min()
        transitions = self._truth(llc, loss, [name for name, _ in shapes])
        if transitions is None:
            return None
        level = noise * (min(abs(t.delta_llc) for t in transitions) if transitions else span)
        memory = self._random.uniform(0.2, 0.9) if self._random.random() < 0.5 else 0.0
        curve = self._measured(llc, loss, level, memory)
        return Planted(curve, self.x, transitions, memory > 0, self.num_near_plateaus)

    def _place(self) -> bool:
        """Ends of transitions, in x; False if they don't fit. Widths and gaps are drawn as numbers of checkpoints."""
        random, count, room = self._random, self.count, len(self.steps) - 1
        widths = random.uniform(5, 16, count)
        gaps = [random.uniform(4, 14)]
        for goes_on in self.goes_on[1:-1]:
            meets = not goes_on and random.random() < 0.25  # a turning point without a plateau
            gaps.append(0.0 if meets else random.uniform(5 if goes_on else 3, 14))
        gaps.append(random.uniform(4, 14))
        free = room - widths.sum() - sum(gaps)
        if free < 0:
            return False
        shares = free * random.dirichlet(np.ones(2 * count + 1))
        widths = widths + shares[:count]
        if count:
            gaps = [gap + (more if gap else 0) for gap, more in zip(gaps, shares[count:], strict=True)]
        starts = np.cumsum(gaps[:count]) + np.cumsum(widths) - widths
        index = np.arange(room + 1)
        self.starts, self.stops = (np.interp(ends, index, self.x) for ends in (starts, starts + widths))
        edges = np.concatenate([[self.x[0]], np.stack([self.starts, self.stops], axis=1).ravel(), [self.x[-1]]])
        self.plateaus = edges.reshape(-1, 2)
        return True

    def _part(self, start: float, stop: float) -> Floats:
        """0 before, 1 after, straight between."""
        return np.clip((self.fine - start) / (stop - start), 0, 1)

    def _llc(self, shapes: list[tuple[str, Shape]]) -> Floats:
        changes = self.directions * 10 ** self._random.uniform(-0.5, 0.5, self.count)
        llc = np.zeros(FINE)
        for change, start, stop, (_, form) in zip(changes, self.starts, self.stops, shapes, strict=True):
            llc += change * form(self._part(start, stop))
        for k, (start, stop) in enumerate(self.plateaus):
            beside = np.abs(changes[max(0, k - 1) : k + 1])
            if stop > start and len(beside):
                llc += self._drift(k, beside) * self._part(start, stop)
        return llc

    def _drift(self, plateau: int, beside: Floats) -> float:
        """What the LLC changes by on a plateau."""
        if not self.goes_on[plateau] or self._random.random() < 0.5:
            return float(self._random.uniform(-0.02, 0.02) * beside.min())
        self.num_near_plateaus += 1
        start, stop = self.plateaus[plateau]
        around = self.stops[plateau - 1 : plateau + 1] - self.starts[plateau - 1 : plateau + 1]
        rise = self._random.uniform(0.02, 0.15) * (beside / around).min() * (stop - start)
        return float(self.directions[plateau] * min(rise, beside.min() / 2))

    def _loss(self) -> Floats:
        """It falls in A, hardly changes in B, falls or rises much in neither, and falls a little all the time."""
        falls = 10 ** self._random.uniform(-1.2, 0, self.count)
        largest = max((fall for fall, kind in zip(falls, self.types, strict=True) if kind == "A"), default=0.2)
        loss = np.zeros(FINE)
        for fall, kind, up, start, stop in zip(
            falls, self.types, self.directions, self.starts, self.stops, strict=True
        ):
            by = fall if kind == "A" else self._random.uniform(-0.02, 0.08) * largest
            if kind is None:  # the loss goes the LLC's way, by as much as at an A
                by = -up * self._random.uniform(0.35, 1) * largest
            loss -= by * shape(self._random)[1](self._part(start, stop))
        if "A" in self.types:
            loss -= self._random.uniform(0.005, 0.03) * self._part(self.x[0], self.x[-1])
        else:  # all of the fall comes before the first transition
            loss -= 0.5 * self._part(self.x[0], float(self.starts[0]) if self.count else self.x[-1])
        return loss + self._random.uniform(0.01, 1) - loss.min()

    def _truth(self, llc: Floats, loss: Floats, shapes: list[str]) -> list[Transition] | None:
        """The transitions as they are to be found; None if a type is not clear."""
        levels = [np.interp(np.linspace(start, stop, 200), self.fine, llc).mean() for start, stop in self.plateaus]
        found: list[Transition] = []
        for k, name in enumerate(shapes):
            near = (self.fine >= self.plateaus[k].mean()) & (self.fine <= self.plateaus[k + 1].mean())
            x, change = self.fine[near], levels[k + 1] - levels[k]
            done = (llc[near] - levels[k]) / change
            middle = int(np.argmax(done >= 0.5))
            start = x[np.flatnonzero(done[:middle] <= END_SHARE)[-1]]
            stop = x[middle + int(np.argmax(done[middle:] >= 1 - END_SHARE))]
            fall = np.interp(stop, self.fine, loss) - np.interp(start, self.fine, loss)
            found.append(Transition(start, stop, change, fall, self.types[k], name))
        largest = max((abs(t.delta_loss) for t in found if t.type == "A"), default=float(np.ptp(loss)))
        is_clear = all(_is_clear(t, largest) for t in found)
        goes_as_planned = all(np.sign(t.delta_llc) == up for t, up in zip(found, self.directions, strict=True))
        return found if is_clear and goes_as_planned else None

    def _measured(self, llc: Floats, loss: Floats, level: float, memory: float) -> Curve:
        random, count = self._random, len(self.x)
        true, true_loss = np.interp(self.x, self.fine, llc), np.interp(self.x, self.fine, loss)
        profile = 0.3 + 0.7 * true / true.max() if random.random() < 0.5 else np.ones(count)
        sd = level * profile / np.sqrt((profile**2).mean())
        errors = random.standard_normal((count, NUM_CHAINS))
        for i in range(1, count):
            errors[i] = memory * errors[i - 1] + np.sqrt(1 - memory**2) * errors[i]
        chains = true[:, None] + np.sqrt(NUM_CHAINS) * sd[:, None] * errors
        y, s = chains.mean(axis=1), chains.std(axis=1, ddof=1) / np.sqrt(NUM_CHAINS)
        if random.random() < 0.3:
            self._spoil(y, s, chains, sd)
        loss_s = np.full(count, 0.003 * np.ptp(true_loss))
        noisy = true_loss + loss_s * random.standard_normal(count)
        if self._neither and random.random() < 0.5:
            loss_s = np.full(count, FEW_SAMPLES * np.ptp(true_loss))
        return Curve(self.steps.astype(np.int64), y, s, noisy, loss_s, chains)

    def _spoil(self, y: Floats, s: Floats, chains: Floats, sd: Floats) -> None:
        """Points that are missing, wrong with a wide error, or wrong with a usual one."""
        for i in np.flatnonzero(self._random.random(len(y)) < 0.03):
            kind, off = self._random.integers(3), sd[i] * 10 ** self._random.uniform(0.7, 1.6)
            y[i] += off * self._random.choice([-1, 1])
            if kind == 0:
                y[i] = s[i] = np.nan
            elif kind == 1:
                s[i] = off * self._random.uniform(0.3, 1)
            chains[i] = y[i] + np.sqrt(NUM_CHAINS) * s[i] * self._random.standard_normal(NUM_CHAINS)


def _is_clear(transition: Transition, largest: float) -> bool:
    """Whether nobody would doubt its type, beside the loss's largest change at an A."""
    if transition.type == "A":
        return transition.delta_loss < -0.03 * largest
    if transition.type == "B":
        return abs(transition.delta_loss) < 0.12 * largest
    return abs(transition.delta_loss) > 0.3 * largest
