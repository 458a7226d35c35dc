"""λ from temperatures and the plateau of λ̂, against the finite-nβ truth by quadrature, with power."""

import itertools

import numpy as np
import pytest

from llc import scales
from llc.draws import Draws
from llc.exact import POTENTIALS
from llc.measures import Measurement
from llc.settings import BAOABSettings, LLCSettings, Scale, SGLDSettings
from tests.llc.gaussian import regression
from tests.llc.measured import accepts, measured
from tests.llc.problems import OracleObjective
from tests.oracles import ORACLES, QUADRATICS


def slope(llcs: dict[float, float]) -> float:
    """λ from two temperatures, {nβ: λ̂}."""
    (first, a), (second, b) = llcs.items()
    return (a / first - b / second) / (1 / first - 1 / second)


def over_temperatures(
    name: str, nbetas: tuple[float, ...], gamma: float, epsilon: float, num_draws: int
) -> Measurement:
    """An oracle's λ̂ at several nβ, with underdamped chains: tethers as weak as these take them far."""
    settings = LLCSettings(
        sampler=BAOABSettings(epsilon=epsilon, momentum=0.95),
        nbeta=nbetas[0],
        gamma=gamma,
        batch_size=1,
        num_chains=10,
        num_burnin_steps=500,
        num_draws=num_draws,
        scales=tuple(Scale(nbeta=nbeta, gamma=gamma) for nbeta in nbetas[1:]),
    )
    oracle = ORACLES[name]
    return measured(OracleObjective(oracle), np.zeros(oracle.dimension), settings)


def test_the_curve_over_scales_and_its_plateau_on_x2y2() -> None:
    nbetas = (100.0, 300.0, 1000.0)
    found = over_temperatures("x2y2", nbetas, gamma=3.0, epsilon=2e-3, num_draws=4000)
    table = found.details["scales"]
    assert [row["nbeta"] for row in table] == pytest.approx(nbetas)
    for row in table:
        truth = POTENTIALS["x2y2"].llc(row["nbeta"], 3.0)
        assert row["verdict"] == "ok", row
        assert row["std_error"] < 0.05 * truth
        assert abs(row["llc"] - truth) < 3 * row["std_error"]
    limit, poles = found.quantities["llc_plateau"], found.quantities["multiplicity"]
    assert found.details["plateau"] == ""
    assert limit.std_error < 0.1
    assert abs(limit.value - 0.5) < 3 * limit.std_error
    assert poles.std_error < 0.6
    assert abs(poles.value - 2) < 3 * poles.std_error
    for quantity in (limit, poles):
        assert quantity.verdict is not None
        assert quantity.verdict.name == "ok"


@pytest.mark.parametrize(
    ("name", "nbetas", "gamma", "num_draws"),
    [("valley", (100.0, 400.0), 20.0, 1500), ("w4", (100.0, 1000.0), 1.0, 3000)],
)
def test_two_temperatures_give_the_llc_without_the_loss_at_w(
    name: str, nbetas: tuple[float, float], gamma: float, num_draws: int
) -> None:
    found = over_temperatures(name, nbetas, gamma, 2e-3, num_draws).quantities
    truth = slope({nbeta: ORACLES[name].llc(nbeta, gamma) for nbeta in nbetas})
    assert accepts(found["llc_two_temperatures"], truth, power=0.05), (found, truth)
    assert "llc_plateau" not in found
    if name == "w4":
        assert truth == pytest.approx(0.25, rel=0.04)


def test_two_temperatures_give_the_llc_where_w_is_no_minimum() -> None:
    """A regression of d = 6, from a point beside its minimum: λ̂ is far off, the slope is about d/2."""
    problem = regression(n=200, d=6, noise=1.5, seed=0)
    w = problem.best + 0.15
    settings = LLCSettings(
        sampler=SGLDSettings(epsilon=1e-3),
        nbeta=200.0,
        gamma=1.0,
        batch_size=200,
        num_chains=8,
        num_burnin_steps=300,
        num_draws=1500,
        scales=(Scale(nbeta=600.0, gamma=1.0),),
    )
    found = measured(problem.objective, w, settings).quantities
    truth = slope({nbeta: problem.llc(w, nbeta, 1.0) for nbeta in (200.0, 600.0)})
    assert truth == pytest.approx(3, rel=0.05)
    assert found["llc"].value < 0
    assert accepts(found["llc_two_temperatures"], truth, power=0.05), (found, truth)


def test_with_another_tether_there_is_no_other_temperature() -> None:
    settings = LLCSettings(
        nbeta=100.0,
        gamma=50.0,
        num_draws=20,
        scales=(Scale(nbeta=200.0, gamma=100.0), Scale(nbeta=400.0, gamma=25.0), Scale(nbeta=50.0, gamma=20.0)),
    )
    found = measured(OracleObjective(QUADRATICS[1]), np.zeros(4), settings)
    assert set(found.quantities) == {"llc"}
    assert "are needed; here are 1" in found.details["plateau"]
    rows = found.details["scales"]
    assert [row["epsilon"] for row in rows] == pytest.approx([1e-4, 0.5e-4, 0.25e-4, 2e-4])
    main, *others = rows
    for row, h in itertools.product(others, QUADRATICS[1].h):  # as stable in every direction
        assert row["epsilon"] * (row["nbeta"] * h + row["gamma"]) <= main["epsilon"] * (100 * h + 50) * (1 + 1e-6)


# Fits of values that are known exactly -------------------------------------------------------------------------------


def known(llcs: dict[float, float], gamma: float = 1.0, spread: float = 1e-3) -> Draws:
    """Draws whose λ̂ at each nβ is all but exact."""
    rng = np.random.default_rng(0)
    nbeta = np.array(list(llcs))
    shape = (len(llcs), 4, 100)
    x = rng.standard_normal(shape)
    x -= x.mean(axis=(1, 2), keepdims=True)
    losses = (np.array(list(llcs.values()))[:, None, None] + spread * x) / nbeta[:, None, None]
    ones = np.ones(len(llcs))
    return Draws(
        losses=losses,
        baselines=np.zeros(shape),
        works=np.zeros(shape),
        squares=rng.random(shape),
        excesses=np.empty((*shape[:2], 0)),
        virial_excesses=np.empty((*shape[:2], 0)),
        probe_losses=np.empty((*shape[:2], 0, 0), np.float32),
        probe_baselines=np.empty((len(llcs), 0), np.float32),
        diverged_at=np.full(shape[:2], -1),
        epsilon=ones,
        nbeta=nbeta,
        gamma=gamma * ones,
        num_free=ones,
        acceptance=np.full(shape[:2], np.nan),
    )


SCALES = [((1e2, 1e3, 1e4), 1.0), ((1e4, 1e5, 1e6), 10.0)]


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_plateau_holds_the_truth_of_known_potentials(name: str) -> None:
    """Where there is one, the truth is within two error bars; with a weak tether there is one."""
    potential = POTENTIALS[name]
    limit = 3.5 if name == "x4y4" else 2  # which is farthest from its limit
    for nbetas, gamma in SCALES:
        draws = known({nbeta: potential.llc(nbeta, gamma) for nbeta in nbetas}, gamma)
        plateau = scales.plateau(draws, range(3))
        if plateau.llc is None:
            assert "no plateau" in plateau.why_not
            assert gamma > 1
            continue
        off = plateau.llc.value - potential.lambda_
        assert abs(off) < limit * plateau.llc.std_error, (nbetas, gamma, plateau)


def test_a_law_without_multiplicity_has_none() -> None:
    plateau = scales.plateau(known({1e2: 2.5, 1e3: 2.5, 1e4: 2.5}), range(3))
    assert plateau.llc is not None
    assert plateau.multiplicity is not None
    assert plateau.llc.value == pytest.approx(2.5, abs=1e-3)
    assert plateau.llc.std_error < 1e-3
    assert plateau.multiplicity.value == pytest.approx(1, abs=5e-3)
    assert plateau.multiplicity.std_error < 5e-3


def test_the_law_itself_is_fitted_exactly() -> None:
    plateau = scales.plateau(known({nbeta: 5 - 2 / np.log(nbeta) for nbeta in (1e2, 1e3, 1e4, 1e5)}), range(4))
    assert plateau.llc is not None
    assert plateau.multiplicity is not None
    assert plateau.llc.value == pytest.approx(5, abs=1e-3)
    assert plateau.multiplicity.value == pytest.approx(3, abs=5e-3)
    assert plateau.multiplicity.std_error == pytest.approx(1, abs=1e-2)  # the doubt of an extrapolation


@pytest.mark.parametrize(
    ("llcs", "why_not"),
    [
        ({1e2: 1.0, 1e3: 1.0}, "3 different nbeta"),
        ({5.0: 1.0, 1e2: 1.0, 1e3: 1.0}, "far from the limit"),
        ({1e2: 0.5, 1e3: 0.8, 1e4: 1.0}, "changes by 50%"),
        ({1e2: 1.0, 1e3: np.nan, 1e4: 1.0}, "no error bar"),
    ],
)
def test_where_the_data_do_not_tell_there_is_a_reason_and_no_fit(llcs: dict[float, float], why_not: str) -> None:
    draws = known(llcs)
    plateau = scales.plateau(draws, range(len(llcs)))
    assert plateau.llc is plateau.multiplicity is None
    assert why_not in plateau.why_not


def test_rows_of_one_temperature_count_once() -> None:
    draws = known({1e2: 1.0, 1e3: 1.0, 1e4: 1.0})
    draws.nbeta[2] = 1e2
    draws.gamma[1] = 7.0
    assert scales.temperatures(draws, 0, [1, 2]) == [0]
    draws.gamma[1] = 1.0
    assert scales.temperatures(draws, 1, [0, 2]) == [2, 1]
    assert scales.from_temperatures(draws, [0]) is None


def test_noise_that_rows_share_cancels_in_the_slope() -> None:
    """The draws of E[L] at two temperatures move together: the slope's error is that of their difference."""
    draws = known({1e2: 1.0, 1e3: 1.0}, spread=0.0)
    draws.losses[:] += 1e-3 * np.random.default_rng(1).standard_normal((1, 4, 100))
    together = scales.from_temperatures(draws, [0, 1])
    draws.losses[1] = draws.losses[1, :, ::-1]
    apart = scales.from_temperatures(draws, [0, 1])
    assert together is not None
    assert apart is not None
    assert together.std_error < 1e-3 * apart.std_error
