"""What a pilot's draws say of the settings that they were drawn with.

The draws of a `TrialRun` are those of a few variants of the settings at every checkpoint of a pilot, as rows of one
loop, variant by variant, in the order of falling steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from llc import estimators, health
from llc.draws import Array, Draws
from llc.estimators import Estimate
from llc.settings import LLCSettings

MAX_EXCESS = 0.05
"""Of λ̂, from gradient noise; beyond, control variates, a larger batch or a smaller step."""


Move = tuple[Array, Array]
"""Of λ̂, from the next smaller step to one, as a share of it, with the noise of that: (checkpoints,) each."""


@dataclass(frozen=True)
class Trial:
    """One setting at one checkpoint of the pilot."""

    checkpoint: int
    kernel: str
    epsilon: float
    gamma: float
    llc: float
    sampling_error: float
    excess: float
    virial: float
    verdict: str


@dataclass(frozen=True)
class TrialRun:
    """Draws of all variants at all checkpoints."""

    draws: Draws
    variants: Sequence[LLCSettings]

    @property
    def num_checkpoints(self) -> int:
        return len(self.draws.epsilon) // len(self.variants)

    def rows(self, variant: int) -> slice:
        """Those of a variant."""
        return slice(variant * self.num_checkpoints, (variant + 1) * self.num_checkpoints)

    @cached_property
    def estimates(self) -> list[Estimate]:
        """λ̂ of every row."""
        return [estimators.llc(self.draws, row) for row in range(len(self.draws.epsilon))]

    @cached_property
    def plain(self) -> list[Estimate]:
        """The same without its control variate."""
        return [estimators.llc(self.draws, row, control=False) for row in range(len(self.draws.epsilon))]

    @cached_property
    def verdicts(self) -> list[health.VerdictName]:
        """Of every row."""
        settings = self.variants[0].health
        judged = enumerate(self.estimates)
        return [health.judge(self.draws, row, estimate, settings).name for row, estimate in judged]

    @cached_property
    def is_flat(self) -> NDArray[np.bool_]:
        """(rows,), whether the loss is the same wherever the chains go."""
        return np.array([self.draws.is_flat(row) for row in range(len(self.draws.epsilon))])

    def telling(self, variant: int) -> list[int]:
        """Its rows, but for those whose loss is flat: of no step can they tell whether it is right."""
        return [row for row in range(len(self.is_flat))[self.rows(variant)] if not self.is_flat[row]]

    def table(self) -> list[Trial]:
        """Row by row."""
        draws = self.draws
        return [
            Trial(
                checkpoint=row % self.num_checkpoints,
                kernel=self.variants[0].sampler.name,
                epsilon=float(draws.epsilon[row]),
                gamma=float(draws.gamma[row]),
                llc=estimate.value,
                sampling_error=estimate.sampling_error,
                excess=estimate.excess,
                virial=float(draws.virials[row].mean()),
                verdict=self.verdicts[row],
            )
            for row, estimate in enumerate(self.estimates)
        ]

    def verdicts_of(self, variant: int) -> set[health.VerdictName]:
        """On the rows that can tell."""
        return {self.verdicts[row] for row in self.telling(variant)}

    def fitness(self) -> NDArray[np.bool_]:
        """(3, variants), whether each is *safe*, healthy itself and no chain lost at the next larger step, for then
        some would be here in a longer run; *cool*, for a long run would call hot what is somewhat hot here; *quiet*,
        with little gradient noise. The first one, which has no larger one, is not safe.
        """
        verdicts = [self.verdicts_of(variant) for variant in range(len(self.variants))]
        safe = [not verdict & health.ILL and "diverged" not in larger for larger, verdict in pairwise(verdicts)]
        virials = np.where(self.is_flat, 1.0, self.draws.virials.mean((1, 2))).reshape(len(self.variants), -1).max(1)
        cool = virials <= 1 + (self.variants[0].health.max_virial - 1) / 2
        return np.array([[False, *safe], cool, self.excess_shares() <= MAX_EXCESS])

    def excess_shares(self) -> Array:
        """(variants,): the excess as a share of λ̂, over all checkpoints."""
        excesses = _finite_means(self.draws.excesses)
        llc = np.abs(_finite_means(self.draws.potentials) - excesses)
        excess, whole = (each.reshape(len(self.variants), -1).sum(1) for each in (excesses, llc))
        return np.divide(excess, whole, out=np.zeros_like(whole), where=whole > 0)

    def changes(self, variant: int, *, control: bool) -> Move:
        """To this variant, with the control variate or without; where the loss does not depend on the weights, 0."""
        found = self.estimates if control else self.plain
        pairs = list(zip(found[self.rows(variant)], found[self.rows(variant + 1)], strict=True))
        values = np.array([abs(fine.value) or math.inf for _, fine in pairs])
        moved = np.array([coarse.value - fine.value for coarse, fine in pairs])
        noise = np.array([math.hypot(coarse.std_error, fine.std_error) for coarse, fine in pairs])
        return moved / values, np.where(np.isinf(values), 0.0, noise / values)


def _finite_means(of_draws: Array) -> Array:
    """(rows,); 0 if nothing is finite."""
    finite = np.isfinite(of_draws)
    return np.where(finite, of_draws, 0).sum((1, 2)) / np.maximum(1, finite.sum((1, 2)))
