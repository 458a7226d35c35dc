"""The virial as control variate of λ̂: the same truth, known better, and a wrong temperature mended."""

from dataclasses import replace

import numpy as np
import pytest

from llc import estimators
from llc.draws import Draws
from llc.estimators import Estimate
from llc.settings import LLCSettings, MALASettings, SamplerSettings, SGLDSettings
from tests.llc.problems import draw_oracle
from tests.oracles import ORACLES


def both(draws: Draws) -> tuple[Estimate, Estimate]:
    """λ̂ without its control variate, and with it."""
    return estimators.llc(draws, 0, control=False), estimators.llc(draws, 0)


def run(
    oracle: str, nbeta: float, gamma: float, sampler: SamplerSettings, seed: int = 0, num_draws: int = 400
) -> Draws:
    chosen = LLCSettings(
        sampler=sampler,
        nbeta=nbeta,
        gamma=gamma,
        batch_size=1,
        num_chains=8,
        num_burnin_steps=200,
        num_draws=num_draws,
        seed=seed,
    )
    return draw_oracle(ORACLES[oracle], chosen)


@pytest.mark.parametrize(
    ("oracle", "nbeta", "gamma", "epsilon", "gain"),
    [("bowl", 100.0, 1.0, 0.01, 10), ("half flat", 100.0, 10.0, 0.01, 0.95), ("w4", 100.0, 3.0, 0.005, 10)],
)
def test_it_is_the_same_truth_with_less_noise(
    oracle: str, nbeta: float, gamma: float, epsilon: float, gain: float
) -> None:
    """Of one degree all noise goes; no harm is done by directions that the tether holds, whose noise is slow."""
    truth = ORACLES[oracle].llc(nbeta, gamma)
    found = [both(run(oracle, nbeta, gamma, SGLDSettings(epsilon=epsilon), seed)) for seed in range(10)]
    plain, controlled = (np.array([each.value for each in side]) - truth for side in zip(*found, strict=True))
    assert np.sqrt(np.mean(controlled**2)) < np.sqrt(np.mean(plain**2)) / gain
    bars = np.array([each.std_error for _, each in found])
    assert bars.mean() < np.mean([each.std_error for each, _ in found]) / gain
    assert (np.abs(controlled) < 2 * bars).sum() >= 8


def test_the_truth_is_the_same_where_the_loss_is_of_no_degree() -> None:
    """Of an exact kernel, with power: the error bar is small."""
    plain, controlled = both(run("x2y2", 100.0, 30.0, MALASettings(epsilon=0.02), num_draws=8000))
    truth = ORACLES["x2y2"].llc(100.0, 30.0)
    assert controlled.std_error < 0.02 * truth
    assert controlled.std_error < plain.std_error
    assert abs(controlled.value - truth) < 3 * controlled.std_error


def test_the_error_bar_holds_what_the_slope_may_be_off_by() -> None:
    """Short chains on x²y², where λ̂ against the virial is a curve: the slope hides how far they are from the mean."""
    truth = ORACLES["x2y2"].llc(1e4, 30.0)
    found = [both(run("x2y2", 1e4, 30.0, SGLDSettings(epsilon=0.0004), seed, 300))[1] for seed in range(30)]
    z = np.array([(each.value - truth) / each.std_error for each in found])
    assert np.mean([each.std_error for each in found]) < 0.09 * truth
    assert np.sqrt(np.mean(z**2)) < 1.6  # without that, 1.9


def test_a_temperature_is_mended() -> None:
    """Chains that are a fifth too hot everywhere; by such a change of the draws of an exact kernel."""
    exact = run("bowl", 100.0, 20.0, SGLDSettings(epsilon=0.01))
    heat = 1.2
    hot = replace(
        exact, losses=exact.losses * heat, works=exact.works * heat, squares=exact.squares * heat
    )  # the loss is quadratic, its minimum 0
    truth = ORACLES["bowl"].llc(100.0, 20.0)
    plain, controlled = both(hot)
    assert plain.value > 1.15 * truth
    assert controlled.value == pytest.approx(truth, rel=0.02)
    assert controlled.shift == pytest.approx(plain.value - controlled.value)
    assert controlled.std_error > controlled.shift / 5  # a shift so far beyond chance is not believed to the last


def test_what_the_step_does_to_the_virial_is_not_taken_off_twice() -> None:
    chosen = SGLDSettings(epsilon=0.004, noise="independent")
    exact = run("valley", 100.0, 20.0, chosen, num_draws=3000)
    truth = ORACLES["valley"].llc(100.0, 20.0)
    plain, controlled = both(exact)
    assert plain.excess > 0.1 * truth
    assert abs(controlled.value - truth) < 3 * controlled.sampling_error
    assert abs(plain.value - truth) < 3 * plain.sampling_error
    assert controlled.sampling_error < plain.sampling_error / 2
    twice = estimators.llc(replace(exact, virial_excesses=np.zeros_like(exact.virial_excesses)), 0)
    assert abs(twice.value - truth) > 0.05 * truth


def test_slow_noise_counts_as_much_as_it_does_in_the_whole_mean() -> None:
    """x and v share fast noise with one sign, and slow noise with the other: the slow one is what the mean has."""
    rng = np.random.default_rng(0)
    shape = (1, 4, 1000)
    fast, slow = rng.standard_normal(shape), np.repeat(rng.standard_normal((1, 4, 20)), 50, axis=2)
    base = run("bowl", 100.0, 1.0, SGLDSettings(epsilon=0.01), num_draws=8)
    draws = Draws(
        **{
            **{name: value[:, :4] if value.ndim > 1 else value for name, value in vars(base).items()},
            "losses": (5 + fast + slow) / base.nbeta,
            "baselines": np.zeros(shape),
            "works": 2 * (5 - fast + slow),
            "squares": np.zeros(shape),
            "excesses": np.zeros((1, 4, 0)),
            "virial_excesses": np.zeros((1, 4, 0)),
        }
    )
    assert base.num_free == 10
    plain, controlled = both(draws)
    assert abs(plain.value - 5) > 0.05
    assert abs(controlled.value - 5) < 0.2 * abs(plain.value - 5) + 0.02


@pytest.mark.parametrize("num_draws", [8, 9])
def test_few_draws_are_no_error(num_draws: int) -> None:
    plain, controlled = both(run("bowl", 100.0, 1.0, SGLDSettings(epsilon=0.01), num_draws=num_draws))
    assert np.isfinite([plain.value, plain.std_error, controlled.value, controlled.std_error]).all()


def test_a_chain_that_was_lost_is_left_out() -> None:
    draws = run("bowl", 100.0, 1.0, SGLDSettings(epsilon=0.01))
    whole = estimators.llc(draws, 0)
    for array in (draws.losses, draws.works, draws.squares):
        array[0, 3, 100:] = np.inf
    rest = estimators.llc(draws, 0)
    assert np.isnan(rest.per_chain[3])
    assert rest.value == pytest.approx(whole.value, rel=0.02)
