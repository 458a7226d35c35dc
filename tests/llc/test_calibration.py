"""Settings that nobody chose by hand, on problems whose answers are known."""

import json

import numpy as np
import pytest
import torch

from llc import estimators, health
from llc.calibration import Calibration, calibrate
from llc.chains import Chains
from llc.ensemble import per_sample_losses
from llc.errors import InputError
from llc.evaluate import evaluate
from llc.models import DeepLinear, ToyModelOfSuperposition
from llc.objective import ModelObjective, Objective
from llc.randomness import seed_of
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


def test_the_pilot_has_noise_of_its_own() -> None:
    """What it chose by is not what is measured: with its seed, the first draws would be its last trial's."""
    objective = OracleObjective(ORACLES["x2y2"])
    found = chosen(objective, auto(seed=5))
    anchors = torch.zeros(1, 2)
    assert found.settings.seed == 5

    def first_draws(seed: int) -> float:
        settings = found.settings.model_copy(update={"seed": seed})
        chains = Chains(
            objective, rows_of(anchors, per_sample_losses(objective, anchors), settings, objective.layout), settings
        )
        chains.burn_in(settings.num_burnin_steps)
        return estimators.llc(chains.draw(settings.num_burnin_steps), 0).value

    trials = [trial.llc for trial in found.trials]
    assert first_draws(seed_of("pilot", 5)) in trials
    assert first_draws(5) not in trials


@pytest.mark.parametrize("size", [1e20, 3e38])
def test_weights_that_blew_up(size: float) -> None:
    """One such checkpoint is left out of the pilot; of nothing else there is nothing to choose by."""
    objective = regression(noise=1.0)
    anchors = torch.zeros(2, objective.layout.num_parameters)
    anchors[1] = size
    alone = chosen(objective, auto(nbeta=None), anchors[:1])
    assert chosen(objective, auto(nbeta=None), anchors).settings == alone.settings
    assert {trial.checkpoint for trial in chosen(objective, auto(nbeta=None), anchors.flip(0)).trials} == {1}
    with pytest.raises(InputError, match="finite"):
        chosen(objective, auto(nbeta=None), anchors[1:])


def test_control_variates_are_chosen_where_the_noise_is_at_the_anchor() -> None:
    noisy = chosen(regression(noise=5.0), auto(nbeta=None, batch_size=32)).settings
    silent = chosen(regression(noise=0.0), auto(nbeta=None, batch_size=32)).settings
    assert noisy.gradient == "control_variate"
    assert silent.gradient == "minibatch"
    found = chosen(regression(5.0), auto(nbeta=None, batch_size=32))
    llc, verdict = estimate(regression(5.0), found)
    assert verdict == health.OK
    x, settings = regression(5.0).batch(torch.arange(4096))["x"].numpy(), found.settings
    stiffness = settings.nbeta_for(len(x)) * np.linalg.eigvalsh(np.cov(x, rowvar=False))
    truth = float((stiffness / (stiffness + settings.gamma)).sum())  # of two outputs, each with half of it
    assert llc.std_error < 0.3 * truth
    assert abs(llc.value - truth) < 3 * llc.std_error


def test_a_kernel_that_gradient_noise_heats_is_not_chosen_though_it_looks_healthy() -> None:
    """Noise heats what keeps its momentum nine times as much."""
    problem = gaussian.regression(n=400, d=6, noise=0.5, seed=0)
    anchors = torch.from_numpy(problem.best.astype(np.float32))[None]
    found = chosen(problem.objective, auto(nbeta=50.0, batch_size=64), anchors)
    *_, other, _ = found.trials  # the last is at half the step
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


def test_a_dead_checkpoint_beside_others_changes_no_setting() -> None:
    """Where every unit is off the loss is flat: it says of no step that it is too large, nor too small."""
    x = (np.eye(4)[np.arange(200) % 4] * np.random.default_rng(0).random((200, 1))).astype(np.float32)
    objective = ModelObjective(ToyModelOfSuperposition(num_features=4), {"x": x})
    alive, dead = torch.tensor([[1.0, 0, -1, 0, 0, 1, 0, -1, 0, 0, 0, 0]]), torch.tensor([[0.0] * 8 + [-1e3] * 4])
    alone, both = (chosen(objective, auto(nbeta=None), some) for some in (alive, torch.cat([alive, dead])))
    assert {trial.verdict for trial in both.trials if trial.checkpoint == 1} == {"stuck"}
    assert both.settings.sampler.name == alone.settings.sampler.name
    assert both.settings.sampler.epsilon == pytest.approx(alone.settings.sampler.epsilon, rel=0.2)
    assert both.settings.gamma == alone.settings.gamma
    assert both.settings.num_draws == pytest.approx(alone.settings.num_draws, rel=0.5)


def test_a_loss_that_is_flat_has_settings_and_a_verdict() -> None:
    """λ̂ = 0 everywhere: no target is ever reached, and nothing is divided by it."""
    flat = OracleObjective(Quadratic("flat", (0.0, 0.0)))
    found = chosen(flat, auto(budget=400, extension=1))
    llc, verdict = estimate(flat, found)
    assert found.settings.num_draws == 70  # all that the budget allows
    assert llc.value == 0
    assert verdict.name == "stuck"
    assert "does not depend on the weights" in verdict.reason
