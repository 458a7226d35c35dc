"""The local learning coefficient λ̂ (Lau et al., arXiv 2308.12108): chains, estimate and verdict in one."""

import numpy as np

from llc import estimators, health
from llc.chains import Draws, sample
from llc.measures.base import CheckpointSeries, Measurement, Quantity
from llc.settings import LLCSettings


def measure(series: CheckpointSeries, settings: LLCSettings) -> list[Measurement]:
    """Quantity `llc`; details: λ̂ of every chain, split R-hat, effective sample size, virial ratio, nβ, γ."""
    draws = sample(series.objective, series.anchors, series.sample_losses, settings, series.report)
    return [_measurement(draws, checkpoint, settings) for checkpoint in range(len(series.anchors))]


def _measurement(draws: Draws, checkpoint: int, settings: LLCSettings) -> Measurement:
    estimate = estimators.llc(draws, checkpoint)
    return Measurement(
        quantities={"llc": Quantity(estimate.value, estimate.std_error)},
        verdict=health.judge(draws, checkpoint, estimate, settings.health),
        details={
            "per_chain": estimate.per_chain.tolist(),
            "r_hat": estimate.r_hat,
            "ess": estimate.ess,
            "virial": float(np.mean(draws.virials[checkpoint])),
            "distance": float(np.mean(draws.distances[checkpoint])),
            "nbeta": draws.nbeta,
            "gamma": draws.gamma,
        },
    )
