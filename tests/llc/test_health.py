"""Estimates and verdicts from draws made by hand."""

import dataclasses

import numpy as np
import pytest

from llc import estimators, health
from llc.draws import Draws
from llc.settings import HealthSettings, LLCSettings

CHAINS, DRAWS = 4, 500


def white(value: float = 10.0, spread: float = 2.0, virial: float = 1.0, excess: float = 0.0) -> Draws:
    """Independent draws with a known mean: λ̂ = `value`, each draw ± `spread`; ‖u‖² of `virial` at γ = 1, d = 1."""
    rng = np.random.default_rng(0)
    shape = (1, CHAINS, DRAWS)
    return Draws(
        losses=(value + excess + spread * rng.standard_normal(shape)) / 100 + 3.0,
        baselines=np.full(shape, 3.0),
        works=np.zeros(shape),
        squares=virial * (1 + 0.1 * rng.uniform(-1, 1, shape)),
        excesses=np.full((1, CHAINS, 50), excess),
        virial_excesses=np.zeros((1, CHAINS, 50)),
        probe_losses=np.empty((1, CHAINS, 0, 0), np.float32),
        probe_baselines=np.empty((1, 0), np.float32),
        diverged_at=np.full((1, CHAINS), -1),
        epsilon=np.array([1e-4]),
        nbeta=np.array([100.0]),
        gamma=np.array([1.0]),
        num_free=np.array([1.0]),
        acceptance=np.full((1, CHAINS), np.nan),
    )


def exploding() -> Draws:
    """Chains that grow tenfold every fifty draws: their mean has an error as large as itself."""
    draws = white()
    return dataclasses.replace(draws, squares=draws.squares * np.logspace(0, 10, DRAWS))


def verdict(draws: Draws) -> health.Verdict:
    return health.judge(draws, 0, estimators.llc(draws, 0), HealthSettings())


def test_independent_draws_have_the_error_of_a_mean() -> None:
    estimate = estimators.llc(white(), 0)
    assert abs(estimate.value - 10) < 4 * 2 / (CHAINS * DRAWS) ** 0.5
    assert 0.8 < estimate.std_error / (2 / (CHAINS * DRAWS) ** 0.5) < 2.5
    assert estimate.r_hat < 1.01
    assert estimate.ess > 0.7 * CHAINS * DRAWS


def test_autocorrelation_widens_the_error_bar() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, CHAINS, DRAWS))
    for t in range(1, DRAWS):
        x[..., t] = 0.9 * x[..., t - 1] + (1 - 0.9**2) ** 0.5 * x[..., t]
    draws = dataclasses.replace(white(), losses=3.0 + (10 + x) / 100)
    estimate = estimators.llc(draws, 0)
    assert estimate.std_error > 3 / (CHAINS * DRAWS) ** 0.5  # the truth: √19 = 4.4 times


def test_the_spread_between_chains_is_in_the_error_bar() -> None:
    draws = white()
    draws.losses[0] += np.array([[-0.1], [-0.03], [0.03], [0.1]])  # chain means 0, 7, 13, 20
    estimate = estimators.llc(draws, 0)
    assert estimate.std_error >= np.std([0, 7, 13, 20], ddof=1) / 2 * 0.99
    assert verdict(draws).name == "not_mixed"


def test_a_drift_that_all_chains_share_is_not_mixed() -> None:
    draws = white(spread=1.0)
    draws.losses[:] += np.linspace(-0.01, 0.01, DRAWS)  # from 9 to 11
    found = verdict(draws)
    assert found.name == "not_mixed"


def test_the_excess_is_taken_off_and_widens_the_error_bar() -> None:
    plain, hot = estimators.llc(white(), 0), estimators.llc(white(excess=1.5), 0)
    assert hot.value == pytest.approx(plain.value)
    assert hot.std_error == pytest.approx(np.hypot(plain.std_error, 0.5))
    assert verdict(white(excess=1.5)).name == "ok"


def test_good_draws_are_ok() -> None:
    assert verdict(white()) == health.OK


@pytest.mark.parametrize(
    ("draws", "name"),
    [
        (white(virial=1.5), "too_hot"),
        (white(virial=0.5), "not_spread"),
        (white(value=-10.0), "not_a_minimum"),
        (white(excess=5.0), "too_hot"),
        (exploding(), "too_hot"),
        (dataclasses.replace(white(), squares=np.zeros((1, CHAINS, DRAWS))), "stuck"),
        (dataclasses.replace(white(), acceptance=np.array([[0.9, 0.01, 0.9, 0.9]])), "stuck"),
        (dataclasses.replace(white(), losses=np.full((1, CHAINS, DRAWS), 3.0)), "stuck"),
    ],
)
def test_every_illness_has_its_name_and_a_reason(draws: Draws, name: str) -> None:
    found = verdict(draws)
    assert found.name == name
    assert len(found.reason) > 20


def test_a_slightly_negative_value_within_its_error_is_ok() -> None:
    assert verdict(white(value=-0.01)).name == "ok"


def test_an_llc_of_zero_is_no_heat() -> None:
    """The excess is many times the value, and less than its noise."""
    zero = -estimators.llc(white(value=0.0), 0).value
    assert abs(estimators.llc(white(value=zero), 0).value) < 1e-9
    assert verdict(white(value=zero, excess=0.005)).name == "ok"
    assert verdict(white(value=zero, excess=0.5)).name == "too_hot"


def test_a_diverged_chain_is_named_and_left_out() -> None:
    draws = white()
    draws.losses[0, 2, 100:] = np.nan
    draws.diverged_at[0, 2] = 137
    estimate = estimators.llc(draws, 0)
    assert abs(estimate.value - 10) < 0.5
    assert np.isnan(estimate.per_chain[2])
    found = verdict(draws)
    assert found.name == "diverged"
    assert "chain 2 at step 137" in found.reason


def test_without_a_healthy_chain_there_is_no_value() -> None:
    draws = white()
    draws.losses[:] = np.nan
    draws.diverged_at[:] = 3
    assert np.isnan(estimators.llc(draws, 0).value)
    assert verdict(draws).name == "diverged"


def test_nbeta_is_n_over_log_n_unless_given() -> None:
    assert LLCSettings().nbeta_for(1000) == pytest.approx(1000 / np.log(1000))
    assert LLCSettings(nbeta=7.0).nbeta_for(1000) == 7.0
