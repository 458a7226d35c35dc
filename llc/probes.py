"""What the losses of a fixed probe set tell of the posterior, at the draws where they were recorded.

The functional variance needs the loss of *one* sample at many draws; minibatch means, each of other samples, don't have
it. Where only S of the n samples are probes, the error of this choice is added, `sd over samples · √((1 − S/n) / S)`.
"""

import math
from dataclasses import replace

import numpy as np

from llc.draws import Array, Draws
from llc.estimators import Estimate, mean


def singular_fluctuation(draws: Draws, row: int, num_samples: int) -> Estimate:
    """ν̂ = (nβ/2) · mean over samples of Var_w(ℓ_i(w)), β/2 times the functional variance (Watanabe 2010, JMLR 11:3571);
    d/2 for a regular model whose loss is the negative log-likelihood and true. num_samples: n.

    The variance is that within chains and that of the chains' means together, which has no bias however the draws of a
    chain hang together.
    """
    losses = draws.nbeta[row] ** 0.5 * _of_healthy(draws, row)
    healthy = losses[np.isfinite(losses).all(axis=(1, 2))]
    if len(healthy) < 2:
        return replace(mean(losses.mean(-1)), value=math.nan)
    means = healthy.mean(axis=1)
    squares = (losses - means.mean(axis=0)) ** 2 / 2
    unseen = means.var(axis=0, ddof=1) / 2 / len(healthy)
    per_sample = unseen + np.mean((healthy - means.mean(axis=0)) ** 2 / 2, axis=(0, 1))
    found = mean(squares.mean(-1))
    error = math.hypot(found.std_error, _choice_error(per_sample, num_samples))
    return replace(found, value=float(per_sample.mean()), std_error=error)


def llc(draws: Draws, row: int, paired: Estimate, num_samples: int) -> Estimate:
    """λ̂ from the probe set's losses at the draws and at w* in place of the minibatches': without their noise, but from
    fewer draws, and of these samples. paired: λ̂ of that row, whose excess is this one's as well; num_samples: n.
    """
    above = draws.nbeta[row] * (_of_healthy(draws, row) - draws.probe_baselines[row])
    found = mean(above.mean(-1))
    per_sample = above[np.isfinite(above).all(axis=(1, 2))].mean(axis=1)
    choice = _choice_error(per_sample.mean(axis=0), num_samples) if len(per_sample) else math.nan
    systematic = math.sqrt(max(0.0, paired.std_error**2 - paired.sampling_error**2))
    return replace(
        found,
        value=found.value - paired.excess,
        std_error=math.hypot(found.std_error, systematic, choice),
        per_chain=found.per_chain - paired.excess,
        excess=paired.excess,
    )


def _of_healthy(draws: Draws, row: int) -> Array:
    """(chains, draws, samples); NaN in chains that diverged, be it later."""
    losses = draws.probe_losses[row].astype(np.float64)
    losses[~np.isfinite(draws.losses[row]).all(axis=1)] = math.nan
    return losses


def _choice_error(per_sample: Array, num_samples: int) -> float:
    """Of a mean over some of the n samples, as an estimate of that over all."""
    count = len(per_sample)
    if count >= num_samples:
        return 0.0
    return float(per_sample.std(ddof=1)) * math.sqrt((1 - count / num_samples) / count) if count > 1 else math.nan
