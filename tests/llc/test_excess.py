"""What gradient noise adds to λ̂, and what of it is taken off: noise where the loss is steep, and where it isn't."""

import numpy as np
import pytest
import torch

from llc import estimators
from llc.chains import sample
from llc.ensemble import per_sample_losses
from llc.rows import rows_of
from llc.settings import BAOABSettings, LLCSettings, SamplerSettings, SGLDSettings
from tests.llc.gaussian import Regression

STEEP, FLAT = 4, 12
NBETA, GAMMA = 500.0, 50.0


def problem(noisy: str, noise: float) -> Regression:
    """Half of the samples know the steep directions of the loss (curvature 1), the others the flat ones (.02), in which
    the tether holds most; the labels of one half are noisy, and so are the gradients in its directions alone.
    """
    rng = np.random.default_rng(5)
    x = rng.standard_normal((4000, STEEP + FLAT)) * np.sqrt(2 * np.array([1.0] * STEEP + [0.02] * FLAT))
    of_steep = np.arange(len(x)) % 2 == 0
    x[of_steep, STEEP:] = 0
    x[~of_steep, :STEEP] = 0
    is_noisy = of_steep if noisy == "steep" else ~of_steep
    return Regression(x, noise * is_noisy * rng.standard_normal(len(x)))


@pytest.mark.parametrize("sampler", [SGLDSettings(epsilon=1e-3), BAOABSettings(epsilon=2e-4, momentum=0.8)])
@pytest.mark.parametrize(("noisy", "noise"), [("steep", 0.5), ("flat", 2.0)])
def test_the_heat_is_taken_off_where_it_is(noisy: str, noise: float, sampler: SamplerSettings) -> None:
    given = problem(noisy, noise)
    settings = LLCSettings(
        sampler=sampler, nbeta=NBETA, gamma=GAMMA, batch_size=32, num_chains=64, num_burnin_steps=200, num_draws=1200
    )
    anchors = torch.from_numpy(given.best.astype(np.float32))[None]
    rows = rows_of(anchors, per_sample_losses(given.objective, anchors), settings, given.objective.layout)
    draws = sample(given.objective, rows, settings)
    found, truth = estimators.llc(draws, 0, control=False), given.llc(given.best, NBETA, GAMMA)
    assert found.sampling_error < 0.025 * truth
    assert found.excess > 0.05 * truth
    assert abs(found.value - truth) < 0.15 * found.excess + 3 * found.sampling_error
