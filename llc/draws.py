"""What chains leave behind. Every estimate is a pure function of these arrays, and can be made again from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


OVER_DRAWS = ("losses", "baselines", "works", "squares", "excesses", "virial_excesses", "probe_losses")
"""The arrays of `Draws` whose third axis is of draws."""

EXCESSES = ("excesses", "virial_excesses")


@dataclass(frozen=True)
class Draws:
    """What the chains recorded: float64, (rows, chains, draws); NaN after divergence."""

    losses: Array
    """L_B(w), the minibatch's mean loss at the draw."""
    baselines: Array
    """L_B(w*), the same minibatch's at the anchor."""
    works: Array
    """u·nβ∇L, the loss' part of the virial."""
    squares: Array
    """‖u‖²."""
    excesses: Array
    """(rows, chains, some of the draws, or none): the excess of λ̂ that step size and gradient noise are expected to
    cause, to first order.
    """
    virial_excesses: Array
    """(rows, chains, as many): that of `half_virials`."""
    probe_losses: NDArray[np.float32]
    """(rows, chains, draws / settings.draws_between_probes, samples): of each sample of the probe set."""
    probe_baselines: NDArray[np.float32]
    """(rows, samples): the same at the anchors."""
    diverged_at: NDArray[np.int64]
    """(rows, chains): the first step at which the loss was not finite, or −1."""
    epsilon: Array
    """(rows,)."""
    nbeta: Array
    """(rows,)."""
    gamma: Array
    """(rows,)."""
    num_free: Array
    """(rows,): parameters that are not held."""
    acceptance: Array
    """(rows, chains): share of proposals accepted; NaN for a kernel without proposals."""

    @classmethod
    def concatenate(cls, parts: "Sequence[Draws]") -> "Draws":
        """The rows of several runs, with as many chains and draws each, as those of one.

        A run without excesses had none: 0. Probes of another number are left out: NaN.
        """
        probes = max(part.probe_losses.shape[2:] for part in parts)
        excesses = max(part.excesses.shape[2] for part in parts)
        shapes = dict.fromkeys(EXCESSES, (excesses,)) | {"probe_losses": probes, "probe_baselines": probes[1:]}

        def filled(part: "Draws", name: str) -> NDArray:
            array = getattr(part, name)
            if name not in shapes:
                return array
            shape = array.shape[: array.ndim - len(shapes[name])] + shapes[name]
            return array if array.shape == shape else np.full(shape, 0 if name in EXCESSES else np.nan, array.dtype)

        return cls(**{name: np.concatenate([filled(part, name) for part in parts]) for name in vars(parts[0])})

    @classmethod
    def joined(cls, parts: "Sequence[Draws]") -> "Draws":
        """Of the same rows, what was drawn first, then, and so on."""
        arrays = {name: np.concatenate([getattr(part, name) for part in parts], axis=2) for name in OVER_DRAWS}
        return replace(parts[-1], **arrays)

    def is_flat(self, row: int) -> bool:
        """Whether the loss is the same wherever a row's chains go, as where every unit is dead."""
        return bool(np.ptp(self.losses[row] - self.baselines[row]) == 0)

    def of_rows(self, rows: Sequence[int]) -> "Draws":
        """Those of some of the rows."""
        return Draws(**{name: array[list(rows)] for name, array in vars(self).items()})

    def without_samples(self) -> "Draws":
        """As if there had been no probe set."""
        rows, chains = self.diverged_at.shape
        return replace(
            self,
            probe_losses=np.empty((rows, chains, 0, 0), np.float32),
            probe_baselines=np.empty((rows, 0), np.float32),
        )

    @property
    def num_draws(self) -> int:
        """Of each chain."""
        return self.losses.shape[2]

    @property
    def half_virials(self) -> Array:
        """(rows, chains, draws): ½ u·∇U, half the number of free parameters in the mean, at equilibrium."""
        return (self.works + self.gamma[:, None, None] * self.squares) / 2

    @property
    def virials(self) -> Array:
        """(rows, chains, draws): u·∇U over the number of free parameters; 1 in the mean, at equilibrium."""
        return 2 * self.half_virials / self.num_free[:, None, None]

    @property
    def potentials(self) -> Array:
        """(rows, chains, draws): nβ (L_B(w) − L_B(w*)), whose mean is λ̂."""
        return self.nbeta[:, None, None] * (self.losses - self.baselines)

    @property
    def distances(self) -> Array:
        """(rows, chains, draws): ‖u‖."""
        return np.sqrt(self.squares)
