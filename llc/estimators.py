"""λ̂ and its error, pure functions of the draws.

`λ̂ = nβ ( E[L_n(w)] − L_n(w*) )`  (Lau et al., arXiv 2308.12108), with the paired baseline: the mean over draws of
`x_t = nβ ( L_B(w_t) − L_B(w*) )`, which has the same expectation and far less noise.

The standard error is the larger of two estimates: `sd(chain means) / √chains`, which knows nothing of autocorrelation
and is itself noisy with few chains, and `sd(x) / √ESS` (Vehtari et al., arXiv 1903.08008), which sees both.
"""

from dataclasses import dataclass

import numpy as np
from arviz_stats.base.array import array_stats
from numpy.typing import NDArray

from llc.chains import Draws

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LLCEstimate:
    """λ̂ of one checkpoint from its healthy chains (those that never left the finite numbers)."""

    value: float
    """NaN if no chain is healthy."""
    std_error: float
    """NaN with fewer than two healthy chains."""
    per_chain: Array
    """(chains,): λ̂ of each; NaN where it diverged."""
    r_hat: float
    """Split R-hat; NaN if it can't be told."""
    ess: float
    """Effective sample size of the mean, over all chains."""


def llc(draws: Draws, checkpoint: int) -> LLCEstimate:
    """λ̂ at one checkpoint of a series."""
    excess = draws.nbeta * (draws.losses[checkpoint] - draws.baselines[checkpoint])
    healthy = excess[np.isfinite(excess).all(axis=1)]
    per_chain = excess.mean(axis=1)
    if len(healthy) < 2 or np.ptp(healthy) == 0:
        return LLCEstimate(float(healthy.mean()) if healthy.size else np.nan, np.nan, per_chain, np.nan, np.nan)
    ess = np.asarray(array_stats.ess(healthy, chain_axis=0, draw_axis=1, method="mean")).item()
    return LLCEstimate(
        value=float(healthy.mean()),
        std_error=max(
            float(healthy.mean(axis=1).std(ddof=1)) / len(healthy) ** 0.5, float(healthy.std(ddof=1)) / ess**0.5
        ),
        per_chain=per_chain,
        r_hat=np.asarray(array_stats.rhat(healthy, chain_axis=0, draw_axis=1, method="split")).item(),
        ess=ess,
    )
