"""λ from rows that differ in nβ alone: the same γ, so that all are posteriors of one prior, the tether, at different
temperatures. (With another γ the change of prior would be taken for a change of temperature.)

**From temperatures, without L(w*)** (Watanabe 2013, JMLR 14:867): `E_β[n L] = n L₀ + λ/β` to leading order, so λ is the
slope of `E[L]` against `1/nβ`; with two rows `(E₁[nL] − E₂[nL]) / (1/β₁ − 1/β₂)`. L₀ cancels, so w* need not be a
minimum; the minibatch's loss at w* is taken off all the same, for it takes the minibatch's noise with it. A direction
of curvature h, which counts p/2 in λ̂, `p = nβ h / (nβ h + γ)`, counts p₁ p₂ / 2 here.

**The plateau.** As nβ grows, `λ̂(nβ) → λ − (m − 1) / log nβ`, m the multiplicity. The law is asymptotic: it knows
neither the unit of nβ nor the tether's own 1 − p, and both look like multiplicity. On potentials with known (λ, m) the
truth lies between λ̂ at the largest nβ and the fitted λ, or hardly more than as far beyond, where λ̂ changes by less than
a fifth over the nβ of the fit. So half of that way counts as a standard error; where λ̂ changes more there is no fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llc.draws import Array, Draws
from llc.estimators import Estimate, combination, llc

MAX_CHANGE = 0.2
"""Of λ̂ from the smallest to the largest nβ, as a share of the largest λ̂, that is still a plateau."""
EXTRAPOLATION_DOUBT = 1 / 2
"""Standard error of an extrapolation, as a share of its length."""
MIN_NBETA = 10.0
FEWEST_TEMPERATURES = 3


@dataclass(frozen=True)
class Plateau:
    """Where λ̂ leads to as nβ grows. Both are None where the data don't tell, and `why_not` says why."""

    llc: Estimate | None = None
    multiplicity: Estimate | None = None
    why_not: str = ""


def temperatures(draws: Draws, row: int, others: Sequence[int]) -> list[int]:
    """`row` and those of the others that differ from it in nβ alone, one of each nβ, by nβ."""
    by_nbeta = {draws.nbeta[other]: other for other in others if draws.gamma[other] == draws.gamma[row]}
    by_nbeta[draws.nbeta[row]] = row
    return [by_nbeta[nbeta] for nbeta in sorted(by_nbeta)]


def from_temperatures(draws: Draws, rows: Sequence[int], step_error: float = 0.0) -> Estimate | None:
    """λ from two rows of different nβ or more, without the loss at w*; None if an error bar is missing."""
    temperature = 1 / draws.nbeta[list(rows)]
    errors = _errors(draws, rows, step_error)
    if len(rows) < 2 or not np.isfinite(errors).all():
        return None
    slope = _least_squares(np.stack([np.ones_like(temperature), temperature], 1), errors * temperature)[1]
    return combination(draws, rows, (slope * temperature).tolist(), step_error)


def plateau(draws: Draws, rows: Sequence[int], step_error: float = 0.0) -> Plateau:
    """λ and m of three rows of different nβ or more, in the order of nβ."""
    nbeta = draws.nbeta[list(rows)]
    errors = _errors(draws, rows, step_error)
    values = np.array([llc(draws, row).value for row in rows])
    if len(rows) < FEWEST_TEMPERATURES:
        return Plateau(why_not=f"{FEWEST_TEMPERATURES} different nbeta at one gamma are needed; here are {len(rows)}")
    if nbeta[0] < MIN_NBETA:
        return Plateau(why_not=f"nbeta {nbeta[0]:.3g} is below {MIN_NBETA:.3g}, far from the limit")
    if not np.isfinite(errors).all():
        return Plateau(why_not="a row has no error bar")
    change = float(np.ptp(values)) / float(np.abs(values).max())
    if change > MAX_CHANGE:
        return Plateau(
            why_not=f"no plateau: the LLC changes by {change:.0%} from nbeta {nbeta[0]:.3g} to {nbeta[-1]:.3g}"
        )
    fit = _least_squares(np.stack([np.ones_like(nbeta), -1 / np.log(nbeta)], 1), errors)
    limit, excess_poles = (combination(draws, rows, shares.tolist(), step_error) for shares in fit)
    return Plateau(
        llc=_doubted(limit, limit.value - values[-1]),
        multiplicity=_doubted(
            replace(excess_poles, value=1 + excess_poles.value, per_chain=1 + excess_poles.per_chain),
            excess_poles.value,
        ),
    )


def _errors(draws: Draws, rows: Sequence[int], step_error: float) -> Array:
    return np.array([llc(draws, row, step_error).std_error for row in rows])


def _least_squares(design: Array, errors: Array) -> Array:
    """(parameters, rows): what each row's value counts in the weighted fit of each parameter."""
    return np.linalg.pinv(design / errors[:, None]) / errors


def _doubted(estimate: Estimate, way: float) -> Estimate:
    """way: how far it was extrapolated, known no better than the estimate itself."""
    doubt = EXTRAPOLATION_DOUBT * math.hypot(way, estimate.sampling_error)
    return replace(estimate, std_error=math.hypot(estimate.std_error, doubt))
