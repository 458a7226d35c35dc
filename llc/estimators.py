"""λ̂ and its relatives with their errors, pure functions of the draws.

`λ̂ = nβ ( E[L_n(w)] − L_n(w*) )`  (Lau et al., arXiv 2308.12108), with the paired baseline: the mean over draws of
`x_t = nβ ( L_B(w_t) − L_B(w*) )`, which has the same expectation and far less noise, less the excess that the sampler's
step size and gradient noise are expected to cause (`llc.chains`).

**The virial as control variate.** Half the virial, `v = ½ u·∇U`, is d/2 in the mean at equilibrium, whatever the
posterior (integration by parts; Assaraf & Caffarel 1999, Mira et al. 2013, arXiv 1012.2983): how far the draws' mean is
from that, they are from equilibrium, by chance or by a step too large. So λ̂ is the mean of `x − c (v − d/2)`, c the
slope of x against v over means of stretches of draws, in which noise that is slow counts as much as it does in the
whole mean. Where the loss holds most of the directions, or all is of one degree, hardly any noise is left; where the
tether holds most, c is small.

The standard error has parts, added in squares. That of sampling is the larger of two estimates:
`sd(chain means) / √chains`, which knows nothing of autocorrelation and is itself noisy with few chains, and
`sd(x) / √ESS` (Vehtari et al., arXiv 1903.08008), which sees both; and with it what c may be off by, since it is the
slope of a relation that need not be straight, found from the draws that it is applied to: `½ √(1 − r²) |c (v̄ − d/2)|`,
r the correlation of the stretches' means, 1 where all is of one degree. Another part is a third of the excess taken
off, which is exact on quadratics only: along a quartic direction it takes off twice too much. The same of a shift
`c (v̄ − d/2)` beyond what chance explains. What a calibration has measured the step size to do beyond that is a last
part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from arviz_stats.base.array import array_stats

from llc.draws import Array, Draws

EXCESS_DOUBT = 1 / 3
"""Standard error of the excess, as a share of it."""

STRETCHES = 10
"""Of a chain's draws, whose means tell how x goes with v."""

SLOPE_DOUBT = 1 / 2
"""Standard error of the shift as a share of it, where x does not go with v at all."""

CHANCE = 2.0
"""Standard errors of v̄ that chance explains."""


@dataclass(frozen=True)
class Estimate:
    """A mean over draws, from the healthy chains (those that never left the finite numbers)."""

    value: float
    """NaN if no chain is healthy."""
    std_error: float
    """NaN with fewer than two healthy chains."""
    per_chain: Array
    """(chains,): the plain mean of each; NaN where it diverged."""
    r_hat: float
    """Split R-hat; NaN if it can't be told."""
    ess: float
    """Effective sample size of the mean, over all chains."""
    excess: float = 0.0
    """What was taken off for step size and gradient noise."""
    shift: float = 0.0
    """What was taken off for the virial."""
    sampling_error: float = math.nan
    """The part of the standard error that more draws make smaller."""


def mean(x: Array) -> Estimate:
    """The expectation of a function of the draws, (chains, draws)."""
    finite = np.isfinite(x).all(axis=1)
    healthy, per_chain = x[finite], np.full(len(x), np.nan)
    per_chain[finite] = healthy.mean(axis=1)
    if len(healthy) < 2 or np.ptp(healthy) == 0:
        return Estimate(float(healthy.mean()) if healthy.size else np.nan, np.nan, per_chain, np.nan, np.nan)
    ess = np.asarray(array_stats.ess(healthy, chain_axis=0, draw_axis=1, method="mean")).item()
    between = float(healthy.mean(axis=1).std(ddof=1)) / len(healthy) ** 0.5
    error = max(between, float(healthy.std(ddof=1)) / ess**0.5)
    r_hat = np.asarray(array_stats.rhat(healthy, chain_axis=0, draw_axis=1, method="split")).item()
    return Estimate(float(healthy.mean()), error, per_chain, r_hat, ess, sampling_error=error)


def llc(draws: Draws, row: int, step_error: float = 0.0, *, control: bool = True) -> Estimate:
    """λ̂ of one row. step_error: what a calibration found the step size to move λ̂ by, as a share of it; control: whether
    the virial is its control variate.
    """
    return combination(draws, [row], [1.0], step_error, control=control)


def combination(
    draws: Draws, rows: Sequence[int], shares: Sequence[float], step_error: float = 0.0, *, control: bool = True
) -> Estimate:
    """`Σ_r c_r λ̂_r`, c_r the shares. Rows see the same noise, which the error of their combination accounts for."""
    chosen, c = list(rows), np.asarray(shares, np.float64)
    x, v = (np.tensordot(c, array[chosen], 1) for array in (draws.potentials, draws.half_virials))
    excesses, virial_excesses = (
        c * np.array([_excess(draws, array, row) for row in chosen])
        for array in (draws.excesses, draws.virial_excesses)
    )
    v = v - float(c @ draws.num_free[chosen]) / 2 - virial_excesses.sum()
    found, shift, doubt = _controlled(x, v) if control else (mean(x), 0.0, 0.0)
    moves = step_error * (c * np.array([mean(draws.potentials[row]).value for row in chosen]) - excesses)
    excess = float(excesses.sum())
    return Estimate(
        value=found.value - excess,
        std_error=math.hypot(
            found.std_error, doubt, EXCESS_DOUBT * float(np.linalg.norm(excesses)), np.linalg.norm(moves)
        ),
        per_chain=found.per_chain - excess,
        r_hat=found.r_hat,
        ess=found.ess,
        excess=excess,
        shift=shift,
        sampling_error=found.sampling_error,
    )


def _controlled(x: Array, v: Array) -> tuple[Estimate, float, float]:
    """The mean of x − c v, with c v̄ and its doubt; (chains, draws) each, the expectation of v is 0.

    Split R-hat and effective sample size are those of x, which has all the noise there is, and so are the means of the
    chains, which are then each chain's own.
    """
    plain, virial = mean(x), mean(v)
    healthy = np.isfinite(x).all(axis=1) & np.isfinite(v).all(axis=1)
    stretches = min(STRETCHES, x.shape[1] // 2)
    if np.isnan(plain.std_error) or np.isnan(virial.std_error) or stretches < 2:
        return plain, 0.0, 0.0
    dx, dv = (_centred_means(y[healthy], stretches) for y in (x, v))
    slope = float((dx * dv).sum() / (dv**2).sum())
    y = np.full_like(x, np.nan)
    y[healthy] = x[healthy] - slope * v[healthy]
    beyond = max(0.0, abs(virial.value) - CHANCE * virial.std_error)
    controlled, shift, whole = mean(y), slope * virial.value, float((dx**2).sum())
    off_line = max(0.0, 1 - slope * float((dx * dv).sum()) / whole) if whole > 0 else 0.0  # 1 − r²
    error = math.hypot(controlled.sampling_error, SLOPE_DOUBT * math.sqrt(off_line) * shift)
    found = replace(plain, value=controlled.value, std_error=error, sampling_error=error)
    return found, shift, EXCESS_DOUBT * abs(slope) * beyond


def _centred_means(y: Array, stretches: int) -> Array:
    """Of stretches of the draws of every chain, less their mean."""
    means = np.stack([part.mean(axis=1) for part in np.array_split(y, stretches, axis=1)])
    return means - means.mean()


def wbic(estimate: Estimate, nbeta: float, loss: float, num_samples: int) -> Estimate:
    """WBIC (Watanabe 2013, JMLR 14:867): `n E[L_n(w)] = n L_n(w*) + λ̂ n/nβ`, at nβ = n / log n.

    An approximation of the free energy, `n L_n(w*) + λ log n`, if the loss is a negative log-likelihood; here with the
    tether for a prior, so that of the neighbourhood of w*. estimate: λ̂ at this nβ; loss: L_n(w*).
    """
    factor, least = num_samples / nbeta, num_samples * loss
    return Estimate(
        value=least + factor * estimate.value,
        std_error=factor * estimate.std_error,
        per_chain=least + factor * estimate.per_chain,
        r_hat=estimate.r_hat,
        ess=estimate.ess,
        excess=factor * estimate.excess,
        shift=factor * estimate.shift,
        sampling_error=factor * estimate.sampling_error,
    )


def _excess(draws: Draws, excesses: Array, row: int) -> float:
    """From the healthy chains; 0 if nothing tells."""
    seen = excesses[row]
    healthy = seen[np.isfinite(draws.potentials[row]).all(axis=1)]
    return float(healthy.mean()) if healthy.size else 0.0
