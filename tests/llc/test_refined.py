"""Refined LLCs, the WBIC and what probes tell, against closed forms, with power."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest

from llc import estimators, probes
from llc.draws import Draws
from llc.errors import InputError
from llc.exact import quadratic_llc
from llc.measures import Measurement
from llc.models import DeepLinear
from llc.objective import ModelObjective
from llc.settings import LLCSettings, Refinement, SGLDSettings
from tests.llc.gaussian import regression
from tests.llc.measured import accepts, measured
from tests.llc.problems import OracleObjective
from tests.oracles import QUADRATICS

# With averaged noise and the whole data there is no bias on quadratics.
EXACT = LLCSettings(
    sampler=SGLDSettings(epsilon=0.01),
    nbeta=50.0,
    gamma=5.0,
    batch_size=10_000,
    num_chains=8,
    num_burnin_steps=100,
    num_draws=700,
)
REGRESSION = regression(n=200, d=6, noise=1.5, seed=0)
OTHER = regression(n=60, d=6, noise=0.3, seed=1)


def by_weights(**patterns: str) -> dict[str, Refinement]:
    return {name: Refinement(weights=(pattern,)) for name, pattern in patterns.items()}


def test_only_the_free_directions_of_a_quadratic_count() -> None:
    valley = QUADRATICS[1]
    refined = by_weights(soft="w[:2]", hard="w[3]", all="*")
    found = measured(OracleObjective(valley), np.zeros(4), EXACT.model_copy(update={"refined": refined}))
    for name, h in (("soft", valley.h[:2]), ("hard", valley.h[3:]), ("all", valley.h)):
        truth = quadratic_llc(h, 50.0, 5.0)
        assert accepts(found.quantities[f"llc_{name}"], truth, power=0.05), (name, found.quantities, truth)
        assert found.details["refined"][name]["verdict"] == "ok"
        assert found.details["refined"][name]["virial"] == pytest.approx(1, abs=0.1)  # of the free parameters alone
    everything, plain = found.quantities["llc_all"], found.quantities["llc"]
    assert (everything.value, everything.std_error) == pytest.approx((plain.value, plain.std_error))


def test_the_llc_is_the_same_with_refinements_beside_it() -> None:
    valley = OracleObjective(QUADRATICS[1])
    alone = measured(valley, np.zeros(4), EXACT)
    beside = measured(valley, np.zeros(4), EXACT.model_copy(update={"refined": by_weights(hard="w[3]")}))
    assert beside.quantities["llc"].value == pytest.approx(alone.quantities["llc"].value, rel=1e-4)
    assert set(alone.quantities) == {"llc"}
    assert set(beside.details) - set(alone.details) == {"refined"}


def test_one_layer_of_a_linear_network_is_a_linear_regression() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((300, 4))
    first, second = rng.standard_normal((3, 4)), rng.standard_normal((2, 3))
    arrays = {"x": x.astype(np.float32), "y": (x @ first.T @ second.T).astype(np.float32)}
    objective = ModelObjective(DeepLinear(widths=(4, 3, 2)), arrays)
    w = np.concatenate([first.ravel(), second.ravel()])
    refined = by_weights(first="layers.0.*", second="layers.1.*", row="layers.0.weight[1]")
    settings = EXACT.model_copy(update={"sampler": SGLDSettings(epsilon=0.005), "refined": refined})
    found = measured(objective, w, settings)
    inputs = x.T @ x / len(x)
    of_first = np.linalg.eigvalsh(np.kron(second.T @ second, inputs))
    of_second = np.linalg.eigvalsh(np.kron(np.eye(2), first @ inputs @ first.T))
    of_row = np.linalg.eigvalsh((second.T @ second)[1, 1] * inputs)
    for name, h in (("first", of_first), ("second", of_second), ("row", of_row)):
        truth = quadratic_llc(h.clip(0), 50.0, 5.0)
        assert accepts(found.quantities[f"llc_{name}"], truth, power=0.05), (name, found.quantities, truth)


def test_another_data_set_has_its_own_llc_at_the_same_scale() -> None:
    """On the other data w is no minimum, and its number of samples is another; λ̂ is exact all the same."""
    w = REGRESSION.best
    refined = {
        "other": Refinement(dataset="dst_other"),
        "both": Refinement(dataset="dst_other", weights=("layers.0.weight[:, 2:5]",)),
        "some": Refinement(weights=("layers.0.weight[:, 2:5]",)),
        "itself": Refinement(dataset="dst_itself"),
    }
    others = {"dst_other": OTHER.objective, "dst_itself": REGRESSION.objective}
    found = measured(REGRESSION.objective, w, EXACT.model_copy(update={"nbeta": None, "refined": refined}), others)
    nbeta = 200 / math.log(200)
    truths = {
        "llc": REGRESSION.llc(w, nbeta, 5.0),
        "llc_itself": REGRESSION.llc(w, nbeta, 5.0),
        "llc_some": REGRESSION.llc(w, nbeta, 5.0, slice(2, 5)),
        "llc_other": OTHER.llc(w, nbeta, 5.0),
        "llc_both": OTHER.llc(w, nbeta, 5.0, slice(2, 5)),
    }
    for name, truth in truths.items():
        assert accepts(found.quantities[name], truth, power=0.05), (name, found.quantities[name], truth)
    assert truths["llc_other"] < truths["llc_both"] < 0
    assert found.verdict.name == "ok"
    for name in ("llc_other", "llc_both"):
        verdict = found.quantities[name].verdict
        assert verdict is not None
        assert verdict.name == "not_a_minimum"
    assert found.details["refined"]["other"]["nbeta"] == pytest.approx(nbeta)


def test_what_is_wrong_with_a_refinement_stays_there() -> None:
    explosive = regression(n=50, d=6, noise=1.0, seed=3, scale=1e4)
    settings = EXACT.model_copy(update={"refined": {"far": Refinement(dataset="dst_far")}})
    found = measured(REGRESSION.objective, REGRESSION.best, settings, {"dst_far": explosive.objective})
    far = found.quantities["llc_far"]
    assert np.isnan(far.value)
    assert far.verdict is not None
    assert far.verdict.name == "diverged"
    assert found.verdict.name == "ok"
    assert accepts(found.quantities["llc"], REGRESSION.llc(REGRESSION.best, 50.0, 5.0), power=0.05)


def test_a_data_set_that_is_not_there_is_named() -> None:
    settings = EXACT.model_copy(update={"refined": {"far": Refinement(dataset="dst_far")}})
    with pytest.raises(InputError, match="dst_far"):
        measured(REGRESSION.objective, REGRESSION.best, settings)


def test_draws_of_all_rows_are_kept_under_their_names() -> None:
    refined = {"other": Refinement(dataset="dst_other"), "some": Refinement(weights=("*[:, 0]",))}
    settings = EXACT.model_copy(
        update={"refined": refined, "num_draws": 20, "num_probe_samples": 100, "batch_size": 100}
    )
    found = measured(REGRESSION.objective, REGRESSION.best, settings, {"dst_other": OTHER.objective})
    kept = found.draws
    assert kept is not None
    assert kept.rows == ("llc", "llc_some", "llc_other")
    assert kept.draws.num_free.tolist() == [6, 1, 6]
    assert (kept.draws.excesses[:2] > 0).any()
    assert (kept.draws.excesses[2] == 0).all()  # the whole data of the other set: no gradient noise
    assert estimators.llc(kept.draws, 2).value == found.quantities["llc_other"].value


# The WBIC and probes --------------------------------------------------------------------------------------------------


def test_the_wbic_of_a_regression() -> None:
    w = REGRESSION.best
    found = measured(REGRESSION.objective, w, EXACT.model_copy(update={"nbeta": None}))
    nbeta = 200 / math.log(200)
    truth = 200 * REGRESSION.loss(w) + math.log(200) * REGRESSION.llc(w, nbeta, 5.0)
    wbic, llc = found.quantities["wbic"], found.quantities["llc"]
    assert abs(wbic.value - truth) <= 3 * wbic.std_error
    assert wbic.std_error == pytest.approx(llc.std_error * math.log(200))
    assert wbic.std_error < 0.05 * (truth - 200 * REGRESSION.loss(w))


def test_there_is_no_wbic_at_another_temperature() -> None:
    found = measured(REGRESSION.objective, REGRESSION.best, EXACT.model_copy(update={"num_draws": 10}))
    assert "wbic" not in found.quantities


@cache
def probed(num_probe_samples: int) -> Measurement:
    """From minibatches of a tenth of the data."""
    settings = EXACT.model_copy(
        update={
            "sampler": SGLDSettings(epsilon=0.005),
            "gradient": "control_variate",
            "batch_size": 20,
            "num_burnin_steps": 200,
            "num_draws": 1200,
            "num_probe_samples": num_probe_samples,
            "draws_between_probes": 5,
        }
    )
    return measured(REGRESSION.objective, REGRESSION.best, settings)


def test_all_samples_as_probes_agree_with_the_paired_minibatches_and_the_truth() -> None:
    found, truth = probed(200).quantities, REGRESSION.llc(REGRESSION.best, 50.0, 5.0)
    paired, probe = found["llc"], found["llc_probe"]
    assert accepts(probe, truth, power=0.05), (probe, truth)
    assert accepts(paired, truth, power=0.05), (paired, truth)
    assert abs(paired.value - probe.value) < 2 * paired.std_error
    fluctuation = found["singular_fluctuation"]
    assert accepts(fluctuation, REGRESSION.singular_fluctuation(REGRESSION.best, 50.0, 5.0), power=0.05), fluctuation
    assert fluctuation.verdict is not None
    assert fluctuation.verdict.name == "ok"


def test_few_probes_say_how_little_they_know() -> None:
    best = REGRESSION.best
    few, all_of_them = probed(20).quantities, probed(200).quantities
    for name, truth in (
        ("llc_probe", REGRESSION.llc(best, 50.0, 5.0)),
        ("singular_fluctuation", REGRESSION.singular_fluctuation(best, 50.0, 5.0)),
    ):
        assert abs(few[name].value - truth) < 3 * few[name].std_error
        assert few[name].std_error > 3 * all_of_them[name].std_error


def ar1_probes(correlation: float, num_draws: int, seed: int) -> Draws:
    """Losses of three samples with variances 1, 4, 9 over chains that remember."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 4, num_draws, 3))
    for t in range(1, num_draws):
        x[:, :, t] = correlation * x[:, :, t - 1] + (1 - correlation**2) ** 0.5 * x[:, :, t]
    still = np.zeros((1, 4, num_draws))
    return Draws(
        losses=still,
        baselines=still,
        works=still,
        squares=still,
        excesses=np.empty((1, 4, 0)),
        virial_excesses=np.empty((1, 4, 0)),
        probe_losses=(5 + x * np.array([1, 2, 3])).astype(np.float32),
        probe_baselines=np.zeros((1, 3), np.float32),
        diverged_at=np.full((1, 4), -1),
        epsilon=np.ones(1),
        nbeta=np.array([3.0]),
        gamma=np.ones(1),
        num_free=np.ones(1),
        acceptance=np.full((1, 4), np.nan),
    )


def test_the_singular_fluctuation_has_no_bias_where_draws_hang_together() -> None:
    truth = 3 / 2 * (1 + 4 + 9) / 3
    found = [probes.singular_fluctuation(ar1_probes(0.9, 30, seed), 0, 3) for seed in range(400)]
    values, errors = np.array([e.value for e in found]), np.array([e.std_error for e in found])
    spread = values.std() / len(values) ** 0.5
    assert spread < 0.03 * truth  # power
    assert abs(values.mean() - truth) < 3 * spread
    within = [ar1_probes(0.9, 30, seed).probe_losses[0].var(axis=1).mean() * 3 / 2 for seed in range(400)]
    assert np.mean(within) < 0.75 * truth  # what chains see alone
    assert 0.4 < np.sqrt(np.mean(errors**2)) / values.std() < 2


def test_a_chain_that_diverged_is_left_out_of_the_probes() -> None:
    draws = ar1_probes(0.0, 200, 0)
    losses = draws.losses.copy()
    losses[0, 1, 150:] = np.nan
    draws.probe_losses[0, 1] *= 100
    found = probes.singular_fluctuation(dataclasses.replace(draws, losses=losses), 0, 3)
    assert abs(found.value - 7) < 4 * found.std_error
    assert found.std_error < 1
    assert np.isnan(found.per_chain[1])
