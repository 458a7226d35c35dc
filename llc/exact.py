"""Known answers: learning coefficients in closed form, by quadrature, and under a sampler's own stationary law.

Three kinds of truth, from the loosest to the tightest thing that an estimate can be held to:

- the learning coefficient (λ, m) itself, the limit of nβ → ∞: `deep_linear`, `tms_kgon_lambda`, `Potential.lambda_`;
- the value of λ̂ = nβ E[L(w) − L(w*)] at a finite (nβ, γ), under the tethered posterior
  p(w) ∝ exp(−nβ L(w) − (γ/2)‖w − w*‖²): `quadratic_llc`, `potential_llc`;
- the value that SGLD with step ε settles at, its discretisation included: `quadratic_sgld_llc`, and with minibatch
  noise too `predicted_bias_factor`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llc.errors import InputError

Floats = NDArray[np.float64]


# Quadratics -----------------------------------------------------------------------------------------------------------


def quadratic_llc(h: ArrayLike, nbeta: float, gamma: float) -> float:
    """λ̂ of L(w) = ½ Σ h_i w_i² at w* = 0: ½ Σ nβ h_i / (nβ h_i + γ).

    h: (d,) curvatures ≥ 0. The limit γ → 0 is half the number of curvatures that are not zero.
    """
    curvature = _curvatures(h)
    curvature = curvature[curvature > 0]
    return float(np.sum(nbeta * curvature / (nbeta * curvature + gamma)) / 2)


def quadratic_sgld_llc(h: ArrayLike, nbeta: float, gamma: float, epsilon: float) -> float:
    """λ̂ of the same quadratic under the stationary law of full-batch SGLD with step ε.

    w ← (1 − ε a_i/2) w + N(0, ε) with a_i = nβ h_i + γ settles at the variance 1 / (a_i (1 − ε a_i/4)), so each term
    of `quadratic_llc` is divided by 1 − ε a_i/4.

    Raises: InputError with code `unstable_step` when some ε a_i ≥ 4: the chain diverges.
    """
    curvature = _curvatures(h)
    stretch = 1 / _contraction(nbeta * curvature + gamma, epsilon)
    curved = curvature > 0
    return float(np.sum(stretch[curved] * nbeta * curvature[curved] / (nbeta * curvature[curved] + gamma)) / 2)


def predicted_bias_factor(
    h: float, nbeta: float, gamma: float, epsilon: float, gradient_variance: float, batch_size: int
) -> float:
    """How many times too large SGLD's λ̂ is, in a direction of curvature h, from its step size and gradient noise:

    (1 + ε (nβ)² σ² / 4m) / (1 − ε (nβ h + γ)/4).

    gradient_variance: σ², the variance over samples of the loss gradient in that direction; batch_size: m.

    Raises: InputError with code `unstable_step`, as `quadratic_sgld_llc`.
    """
    heat = 1 + epsilon * nbeta**2 * gradient_variance / (4 * batch_size)
    return heat / float(_contraction(np.asarray(nbeta * h + gamma), epsilon))


def _curvatures(h: ArrayLike) -> Floats:
    curvature = np.atleast_1d(np.asarray(h, dtype=np.float64))
    if curvature.size and not curvature.min() >= 0:
        raise InputError(
            "negative_curvature",
            f"the curvature {curvature.min():g} is not a number ≥ 0",
            "the known answers are for w* at a minimum",
        )
    return curvature


def _contraction(a: Floats, epsilon: float) -> Floats:
    """1 − ε a/4 where the chain is stable."""
    if np.any(epsilon * a >= 4):
        raise InputError(
            "unstable_step",
            f"SGLD diverges: ε (nβ h + γ) = {epsilon * a.max():g} where the curvature is largest",
            f"it has to stay below 4; choose epsilon below {4 / a.max():g}",
        )
    return 1 - epsilon * a / 4


# Analytic potentials --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Potential:
    """A loss K ≥ 0 with K(0) = 0, known in closed form with its learning coefficient at 0.

    loss: w (..., dimension) → (...), by operators alone, so numpy arrays and torch tensors both serve;
    lambda_, multiplicity: the exact (λ, m).
    """

    name: str
    loss: Callable[[Any], Any]
    dimension: int
    lambda_: Fraction
    multiplicity: int

    def llc(self, nbeta: float, gamma: float) -> float:
        """λ̂ at a finite (nβ, γ)."""
        return potential_llc(self.loss, nbeta, gamma, dimension=self.dimension)


def even_power(k: int) -> Potential:
    """w^{2k}: λ = 1/2k."""
    return Potential(f"w^{2 * k}", lambda w: w[..., 0] ** (2 * k), 1, Fraction(1, 2 * k), 1)


def monomial(a: int, b: int) -> Potential:
    """(x^a y^b)²: λ = 1 / (2 max(a, b)), m = 2 if a = b."""
    return Potential(
        f"x^{2 * a} y^{2 * b}",
        lambda w: w[..., 0] ** (2 * a) * w[..., 1] ** (2 * b),
        2,
        Fraction(1, 2 * max(a, b)),
        2 if a == b else 1,
    )


POTENTIALS: Mapping[str, Potential] = MappingProxyType(
    {
        "w4": even_power(2),
        "x2y2": monomial(1, 1),
        "x4y4": monomial(2, 2),
        "x2+y4": Potential("x^2 + y^4", lambda w: w[..., 0] ** 2 + w[..., 1] ** 4, 2, Fraction(3, 4), 1),
        "cusp": Potential("(x^2 - y^3)^2", lambda w: (w[..., 0] ** 2 - w[..., 1] ** 3) ** 2, 2, Fraction(5, 12), 1),
        "disc": Potential("(x^2 + y^2)^2", lambda w: (w[..., 0] ** 2 + w[..., 1] ** 2) ** 2, 2, Fraction(1, 2), 1),
    }
)

_MAX_ENERGY = 32.0  # above the lowest, beyond which the density is nothing
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


def potential_llc(potential: Callable[[Floats], Floats], nbeta: float, gamma: float, dimension: int = 1) -> float:
    """λ̂ = nβ E[K(w)] at w* = 0 under p(w) ∝ exp(−U), U = nβ K + (γ/2)‖w‖², for any smooth K ≥ 0 with K(0) = 0.

    potential: w (..., dimension) → (...), numpy; dimension 1 or 2; γ > 0. Good to at least six digits.

    In two dimensions the inner integral, over x, gives the energy −log ∫ e^{−U} dx and the mean of nβ K at a y; the
    outer one integrates those.

    Raises: InputError for a potential that is negative or not zero at w*, or of another dimension.
    """
    if dimension not in (1, 2) or not gamma > 0:
        raise InputError("bad_potential", f"quadrature takes 1 or 2 dimensions and γ > 0, not {dimension} and {gamma}")
    if float(potential(np.zeros(dimension))) != 0:
        raise InputError("bad_potential", "the potential is not zero at w* = 0", "subtract its value there")
    radius = sqrt(2 * _MAX_ENERGY / gamma)  # where the tether alone exceeds the largest energy

    def energy_and_loss(w: Floats) -> tuple[Floats, Floats]:
        loss = nbeta * np.asarray(potential(w), dtype=np.float64)
        if not loss.min() >= 0:
            raise InputError("bad_potential", f"nβ times the potential is {loss.min():g}; it has to be a number ≥ 0")
        return loss + gamma / 2 * np.sum(w**2, axis=-1), loss

    def line(_: NDArray[np.intp], x: Floats) -> tuple[Floats, Floats]:
        return energy_and_loss(x[..., None])

    def rows(_: NDArray[np.intp], y: Floats) -> tuple[Floats, Floats]:
        heights = y.ravel()

        def row(index: NDArray[np.intp], x: Floats) -> tuple[Floats, Floats]:
            return energy_and_loss(np.stack(np.broadcast_arrays(x, heights[index, None]), axis=-1))

        # A polynomial's exponential has no singularity, so coarse cells serve; that of a row's mass has, near y = 0.
        energy, loss = _integrate(row, heights.size, radius, max_change=4.0)
        return energy.reshape(y.shape), loss.reshape(y.shape)

    _, loss = _integrate(line if dimension == 1 else rows, 1, radius, max_change=0.25)
    return float(loss[0])


def _integrate(
    energy_and_loss: Callable[[NDArray[np.intp], Floats], tuple[Floats, Floats]],
    num_integrals: int,
    radius: float,
    max_change: float,
) -> tuple[Floats, Floats]:
    """(−log ∫ e^{−U}, mean of the loss under e^{−U}) over [−radius, radius], for many U at once: two (num_integrals,).

    energy_and_loss: (which integral (cells,), x (cells, nodes)) → U and the loss, (cells, nodes) each.

    Gauss-Legendre on cells that are halved until U changes by less than max_change across each. Judged by U, which is
    smooth, and not by e^{−U}, so that a ridge too thin for the first cells to see is found.
    """
    edges = np.linspace(-radius, radius, 9)
    which = np.repeat(np.arange(num_integrals), 8)
    centres = np.tile((edges[1:] + edges[:-1]) / 2, num_integrals)
    halves = np.full_like(centres, radius / 8)
    lowest = np.full(num_integrals, np.inf)
    done: list[tuple[NDArray[np.intp], Floats, Floats, Floats]] = []
    while len(centres):
        energy, loss = energy_and_loss(which, centres[:, None] + halves[:, None] * _NODES)
        np.minimum.at(lowest, which, energy.min(axis=1))
        # Between nodes U is hardly lower than at the lowest node less the largest step from one to the next.
        bound = energy.min(axis=1) - np.abs(np.diff(energy, axis=1)).max(axis=1)
        counts = bound < lowest[which] + _MAX_ENERGY
        coarse = counts & (np.ptp(energy, axis=1) > max_change)
        fine = counts & ~coarse
        done.append((which[fine], energy[fine], halves[fine, None] * _WEIGHTS, loss[fine]))
        which = np.repeat(which[coarse], 2)
        halves = np.repeat(halves[coarse] / 2, 2)
        centres = np.repeat(centres[coarse], 2) + np.tile([-1.0, 1.0], np.count_nonzero(coarse)) * halves
    which, energy, weight, loss = (np.concatenate(parts) for parts in zip(*done, strict=True))
    density = weight * np.exp(lowest[which, None] - energy)
    mass = np.bincount(which, density.sum(axis=1), num_integrals)
    mean = np.bincount(which, (density * loss).sum(axis=1), num_integrals) / mass
    return lowest - np.log(mass), mean


# Networks -------------------------------------------------------------------------------------------------------------


def deep_linear(widths: Sequence[int], rank: int) -> tuple[Fraction, int]:
    """(λ, m) of the deep linear network with these widths (inputs, hidden layers, outputs) and a true matrix of this
    rank [Aoyagi 2024, Neural Networks 172:106132]; inputs of full rank, loss ½‖y − f‖².

    With M_s = H_s − r, S the prefix of the sorted M's, of ℓ + 1 ≥ 2, that has ΣS ≥ ℓ max S and, against what is left
    outside, max S < min_out and ΣS < ℓ min_out; M = ⌈ΣS/ℓ⌉; a = ΣS − (M − 1)ℓ:

    λ = [r (H_1 + H_{L+1}) − r²]/2 + a(ℓ − a)/4ℓ − (ℓ(ℓ − 1)/4)(ΣS/ℓ)² + ½ Σ_{i<j∈S} M_i M_j,  m = a(ℓ − a) + 1.

    This is the smallest λ over the optimal set, reached at block form diag(I_r, 0) in every layer; another optimum can
    have a larger local one.
    """
    if len(widths) < 2 or not 0 <= rank <= min(widths):
        raise InputError(
            "bad_widths",
            f"no deep linear network of widths {list(widths)} has rank {rank}",
            "give two widths or more, none below the rank",
        )
    prefix = _aoyagi_prefix(sorted(width - rank for width in widths))
    ell, total = len(prefix) - 1, sum(prefix)
    ceiling = -(-total // ell)
    a = total - (ceiling - 1) * ell
    pairs = sum(x * y for x, y in itertools.combinations(prefix, 2))
    lambda_ = (
        Fraction(rank * (widths[0] + widths[-1]) - rank**2, 2)
        + Fraction(a * (ell - a), 4 * ell)
        - Fraction(ell * (ell - 1), 4) * Fraction(total, ell) ** 2
        + Fraction(pairs, 2)
    )
    return lambda_, a * (ell - a) + 1


def _aoyagi_prefix(excess: Sequence[int]) -> Sequence[int]:
    for size in range(2, len(excess) + 1):
        prefix, outside = excess[:size], excess[size:]
        ell, total = size - 1, sum(prefix)
        if total >= ell * prefix[-1] and (not outside or (prefix[-1] < outside[0] and total < ell * outside[0])):
            return prefix
    raise AssertionError(f"no prefix of {excess} meets Aoyagi's conditions")  # one always does


def tms_kgon_lambda(k: int, c: int) -> Fraction:
    """λ at the k-gon of the toy model of superposition with c features in two dimensions [arXiv 2310.06301].

    Known for k = c ≥ 5, (3c − 1)/2, and for k = 5 … 8 < c. (4-gons have variants of other λ.)

    Raises: InputError with code `unknown_lambda` elsewhere.
    """
    table = {5: Fraction(7), 6: Fraction(17, 2), 7: Fraction(10), 8: Fraction(23, 2)}
    if k == c and k >= 5:
        return Fraction(3 * c - 1, 2)
    if k < c and k in table:
        return table[k]
    raise InputError(
        "unknown_lambda", f"no λ is known for the {k}-gon with {c} features", "known: k = c ≥ 5, and k = 5 … 8 < c"
    )
