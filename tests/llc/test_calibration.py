"""Settings that nobody chose by hand, on problems whose answers are known."""

import json

import numpy as np
import pytest
import torch

from llc import estimators, health
from llc.calibration import Calibration, calibrate
from llc.chains import Chains
from llc.ensemble import per_sample_losses
from llc.evaluate import evaluate
from llc.models import DeepLinear
from llc.objective import ModelObjective, Objective
from llc.rounds import run_in_rounds
from llc.rows import rows_of
from llc.settings import AutoLLCSettings, MeasureSettings, Target
from tests.llc import gaussian
from tests.llc.problems import OracleObjective
from tests.oracles import ORACLES, Quadratic


def auto(**changes: object) -> AutoLLCSettings:
    return AutoLLCSettings.model_validate({"budget": 1600, "nbeta": 1000.0, **changes})


def chosen(objective: Objective, settings: AutoLLCSettings, anchors: torch.Tensor | None = None) -> Calibration:
    anchors = torch.zeros(1, objective.layout.num_parameters) if anchors is None else anchors
    return calibrate(objective, anchors, per_sample_losses(objective, anchors), settings)


def estimate(objective: Objective, found: Calibration) -> tuple[estimators.Estimate, health.Verdict]:
    """λ̂ at 0 with the settings chosen."""
    settings = found.settings
    anchors = torch.zeros(1, objective.layout.num_parameters)
    rows = rows_of(anchors, per_sample_losses(objective, anchors), settings, objective.layout)
    (draws,) = run_in_rounds(Chains(objective, rows, settings), [[0]], settings)
    found_llc = estimators.llc(draws, 0, settings.step_error)
    return found_llc, health.judge(draws, 0, found_llc, settings.health)


@pytest.mark.parametrize("name", ["w4", "x2y2", "bowl"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])  # of the loss: curvatures over six decades
def test_the_answer_is_right_without_a_setting_chosen_by_hand(name: str, size: float) -> None:
    oracle = ORACLES[name]
    objective = OracleObjective(oracle)
    found = chosen(objective, auto(nbeta=1000.0 / size if name == "bowl" else 1000.0 * size))
    llc, verdict = estimate(objective, found)
    settings = found.settings
    truth = oracle.llc(settings.nbeta_for(1), settings.gamma)
    assert llc.std_error < 0.2 * truth
    assert abs(llc.value - truth) < 3 * llc.std_error
    # Chains wander far along the axes of x²y², where nothing but the tether holds them: they may be told to go on.
    assert verdict == health.OK or (name, verdict.name) == ("x2y2", "not_spread")


def test_a_tether_asked_for_is_kept() -> None:
    objective = OracleObjective(ORACLES["bowl"])
    assert chosen(objective, auto(gamma=77.0)).settings.gamma == 77.0


def test_a_larger_budget_buys_a_weaker_tether_and_a_smaller_target_more_draws() -> None:
    objective = OracleObjective(Quadratic("steep and flat", (1.0, 0.1, 0.01)))
    small, large = (chosen(objective, auto(budget=budget, target=Target(relative_error=0.1))) for budget in (800, 8000))
    precise = chosen(objective, auto(budget=8000, target=Target(relative_error=0.02)))
    assert large.settings.gamma < small.settings.gamma
    assert precise.settings.num_draws > large.settings.num_draws


def test_the_same_pilot_chooses_the_same_and_says_why() -> None:
    objective = OracleObjective(ORACLES["cusp"])
    first, again = chosen(objective, auto()), chosen(objective, auto())
    assert json.dumps(first.report()) == json.dumps(again.report())  # NaN, of a diverged trial, is not itself
    assert len(first.reasons) >= 4
    assert {trial.kernel for trial in first.trials} >= {"sgld", "baoab"}
    assert first.gradients > 1000


def regression(noise: float) -> ModelObjective:
    """Linear regression at its least-squares solution, which is 0."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4096, 6)).astype(np.float32)
    y = noise * rng.standard_normal((4096, 2)).astype(np.float32)
    y -= x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return ModelObjective(DeepLinear(widths=(6, 2)), {"x": x, "y": y})


def test_control_variates_are_chosen_where_the_noise_is_at_the_anchor() -> None:
    noisy = chosen(regression(noise=5.0), auto(nbeta=None, batch_size=32)).settings
    silent = chosen(regression(noise=0.0), auto(nbeta=None, batch_size=32)).settings
    assert noisy.gradient == "control_variate"
    assert silent.gradient == "minibatch"
    llc, verdict = estimate(regression(5.0), chosen(regression(5.0), auto(nbeta=None, batch_size=32)))
    assert verdict == health.OK
    assert abs(llc.value - 6) < 3 * llc.std_error + 0.3  # 12 parameters, little tether


def test_a_kernel_that_gradient_noise_heats_is_not_chosen_though_it_looks_healthy() -> None:
    """Noise heats what keeps its momentum nine times as much."""
    problem = gaussian.regression(n=400, d=6, noise=0.5, seed=0)
    anchors = torch.from_numpy(problem.best.astype(np.float32))[None]
    found = chosen(problem.objective, auto(nbeta=50.0, batch_size=64), anchors)
    (*_, other) = found.trials
    assert (other.kernel, other.verdict) == ("baoab", "ok")
    assert other.excess > 0.05 * other.llc
    assert found.settings.sampler.name == "sgld"
    mine = [trial for trial in found.trials if trial.epsilon == other.epsilon and trial.kernel == "sgld"]
    assert mine
    assert all(trial.excess < 0.05 * trial.llc for trial in mine)


def test_a_series_is_evaluated_with_one_frozen_set() -> None:
    settings = MeasureSettings.model_validate({"loss": None, "llc": {"settings": "auto", "budget": 800}})
    objective = regression(noise=1.0)
    anchors = torch.tensor([[0.0] * 12, [0.01] * 12, [0.02] * 12, [0.03] * 12])
    found = [row["llc"] for row in evaluate(objective, anchors, settings)]
    assert len({(m.details["epsilon"], m.details["gamma"], m.details["nbeta"]) for m in found}) == 1


def test_what_a_person_says_beside_auto_is_kept() -> None:
    wanted = auto(budget=400, num_probe_samples=3, refined={"some": {"weights": ["w[0]"]}}, call_megabytes=7)
    settings = chosen(OracleObjective(ORACLES["bowl"]), wanted).settings
    assert settings.num_probe_samples == 3
    assert settings.call_megabytes == 7
    assert list(settings.refined) == ["some"]
    assert settings.num_rows == wanted.num_rows == 2


def test_a_target_near_zero_is_of_the_series_largest() -> None:
    """A tenth of it; and what a person asks for in numbers is left as it is."""
    objective = OracleObjective(ORACLES["bowl"])
    settings = chosen(objective, auto(budget=400)).settings
    relative, llc = settings.target, ORACLES["bowl"].llc(settings.nbeta_for(1), settings.gamma)
    absolute = chosen(objective, auto(budget=400, target=Target(std_error=0.5))).settings.target
    assert absolute == Target(std_error=0.5)
    assert relative is not None
    assert relative.error(0.0) == pytest.approx(0.03 * 0.1 * llc, rel=0.5)
    assert relative.error(100.0) == pytest.approx(3.0)


def test_a_loss_that_is_flat_has_settings_and_a_verdict() -> None:
    """λ̂ = 0 everywhere: no target is ever reached, and nothing is divided by it."""
    flat = OracleObjective(Quadratic("flat", (0.0, 0.0)))
    found = chosen(flat, auto(budget=400, extension=1))
    llc, verdict = estimate(flat, found)
    assert found.settings.num_draws == 70  # all that the budget allows
    assert llc.value == 0
    assert verdict.name == "stuck"
