"""Chains that go on until λ̂ is known well enough: they stop there, not before, and each checkpoint for itself."""

import numpy as np
import pytest
import torch

from llc import estimators
from llc.chains import Chains
from llc.draws import OVER_DRAWS, Draws
from llc.ensemble import Plan, per_sample_losses
from llc.exact import quadratic_llc
from llc.measures import MEASURES, CheckpointSeries, Measurement
from llc.objective import Objective
from llc.rounds import TRUSTED_ESS
from llc.rows import rows_of
from llc.settings import LLCSettings, Refinement, Scale, SGLDSettings, Target
from tests.llc.gaussian import regression
from tests.llc.problems import OracleObjective
from tests.oracles import QUADRATICS

VALLEY = OracleObjective(QUADRATICS[1])
SETTINGS = LLCSettings(
    sampler=SGLDSettings(epsilon=0.01), nbeta=50.0, gamma=5.0, num_burnin_steps=60, num_draws=90, num_chains=4
)


def until(target: Target | None, **changes: object) -> LLCSettings:
    return SETTINGS.model_copy(update={"target": target, **changes})


def series(objective: Objective, anchors: torch.Tensor, **others: Objective) -> CheckpointSeries:
    losses = per_sample_losses(objective, anchors)
    return CheckpointSeries(objective, anchors, losses, others=others, plan=Plan(rows_per_call=4))


def measured(settings: LLCSettings, anchors: torch.Tensor | None = None) -> list[Measurement]:
    return MEASURES["llc"](series(VALLEY, torch.zeros(1, 4) if anchors is None else anchors), settings)


def doubted(found: Measurement) -> float:
    """The error of λ̂ as a share of it, what few effective draws make uncertain about it included."""
    details = found.details
    share = details["sampling_error"] / found.quantities["llc"].value
    return float(share * max(1.0, TRUSTED_ESS / details["ess"]) ** 0.5)


@pytest.mark.parametrize(("relative", "trusted"), [(0.006, False), (0.002, False), (0.001, True)])
def test_it_goes_on_until_the_target_is_reached_and_no_longer(relative: float, trusted: bool) -> None:
    (found,) = measured(until(Target(relative_error=relative)))
    assert doubted(found) <= relative
    assert (found.details["ess"] >= TRUSTED_ESS) == trusted
    rounds = found.details["num_draws"] // SETTINGS.num_draws
    assert rounds > 1
    (before,) = measured(until(None, num_draws=(rounds - 1) * SETTINGS.num_draws))
    assert doubted(before) > relative
    truth = quadratic_llc(QUADRATICS[1].h, 50.0, 5.0)
    assert abs(found.quantities["llc"].value - truth) < 3 * found.quantities["llc"].std_error


def test_a_tighter_target_takes_more_draws_and_an_absolute_one_counts_too() -> None:
    loose, tight, absolute = (
        measured(until(target))[0].details["num_draws"]
        for target in (Target(relative_error=0.1), Target(relative_error=0.002), Target(std_error=1.0))
    )
    assert loose < tight
    assert absolute == SETTINGS.num_draws


def test_it_ends_short_of_its_target_where_it_may_draw_no_more() -> None:
    (found,) = measured(until(Target(relative_error=1e-4), max_draws=400))
    assert found.details["num_draws"] == 360
    assert found.details["sampling_error"] > 1e-4 * found.quantities["llc"].value


def test_rounds_are_one_run() -> None:
    """Nothing tells draws in rounds from as many at once: not noise, minibatches, excesses or probes."""
    objective = regression(n=200, d=6, noise=1.5, seed=0).objective
    settings = SETTINGS.model_copy(
        update={"batch_size": 16, "num_probe_samples": 5, "draws_between_probes": 7, "sampler": SGLDSettings()}
    )
    anchors = torch.from_numpy(np.zeros((2, objective.layout.num_parameters), np.float32))
    rows = rows_of(anchors, per_sample_losses(objective, anchors), settings, objective.layout)
    chains, again = Chains(objective, rows, settings), Chains(objective, rows, settings)
    parts = Draws.joined([chains.draw(8), chains.draw(25), chains.draw(17)])
    whole = again.draw(50)
    for name in OVER_DRAWS:
        if name != "excesses":  # in which each round has its own share of the loss in the stiffness
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)
    assert parts.excesses.shape == whole.excesses.shape
    for draws in (parts, whole):  # averaged noise: nothing but heat, of which the loss' share is in them
        assert (draws.excesses >= 0).all()
        assert (draws.excesses <= draws.virial_excesses * (1 + 1e-9)).all()


def test_neighbours_that_go_on_change_nothing() -> None:
    """The far one has to be looked at longer; what it needs is not done to the first."""
    near, far = torch.zeros(1, 4), torch.full((1, 4), 0.6)
    settings = until(Target(std_error=0.08, relative_error=None))
    both = measured(settings, torch.cat([near, far, near]))
    alone = [measured(settings, anchor)[0] for anchor in (near, far)]
    counts = [found.details["num_draws"] for found in both]
    assert counts[0] != counts[1]
    assert counts == [alone[0].details["num_draws"], alone[1].details["num_draws"], counts[0]]
    for found, lonely in zip(both, (*alone, alone[0]), strict=True):
        assert found.quantities["llc"].value == pytest.approx(lonely.quantities["llc"].value, rel=1e-4)


def test_refinements_and_scales_are_drawn_as_long_as_the_llc_itself() -> None:
    problem = regression(n=200, d=6, noise=1.5, seed=0)
    other = regression(n=60, d=6, noise=0.3, seed=1).objective
    settings = until(
        Target(relative_error=0.015),
        num_draws=60,
        refined={"other": Refinement(dataset="other")},
        scales=(Scale(nbeta=100.0, gamma=5.0),),
    )
    anchors = torch.from_numpy(problem.best.astype(np.float32))[None]
    (found,) = MEASURES["llc"](series(problem.objective, anchors, other=other), settings)
    assert found.draws is not None
    assert found.draws.draws.losses.shape == (3, 4, found.details["num_draws"])
    assert found.details["num_draws"] > 60
    assert found.details["refined"]["other"]["num_draws"] == found.details["num_draws"]
    assert np.isfinite(estimators.llc(found.draws.draws, 2).value)


def test_chains_without_hope_stop_at_once() -> None:
    (found,) = measured(until(Target(relative_error=1e-3), sampler=SGLDSettings(epsilon=10.0)))
    assert found.verdict is not None
    assert found.verdict.name == "diverged"
    assert found.details["num_draws"] == SETTINGS.num_draws
