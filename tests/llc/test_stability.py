"""An ensemble: its members sample what their settings say, and what is there survives where what is noise does not."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from llc.evaluate import evaluate
from llc.exact import quadratic_llc
from llc.members import at_scale, factors, settings_of
from llc.settings import LLCSettings, MeasureSettings, SGLDSettings, StabilitySettings, StageSettings
from llc.stability import kept, read_with_members, survivals
from llc.stages import Curve, Stage
from tests.llc.problems import OracleObjective
from tests.oracles import Quadratic

H = (0.1, 1.0, 4.0)
OBJECTIVE = OracleObjective(Quadratic("three", H))
LLC = LLCSettings(
    sampler=SGLDSettings(epsilon=2e-3), nbeta=100.0, gamma=20.0, num_chains=16, num_burnin_steps=300, num_draws=800,
    stability=StabilitySettings(num_members=3, spread=3.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def measured() -> Mapping[str, Any]:
    """The details of a quadratic's LLC."""
    (found,) = evaluate(OBJECTIVE, torch.zeros(1, 3), MeasureSettings(loss=None, llc=LLC))
    return found["llc"].details


def test_members_sample_at_their_own_scales(measured: Mapping[str, Any]):
    """Against the known answer at each, with a power that tells these scales apart."""
    truths = []
    for member in measured["members"]:
        truth = quadratic_llc(H, member["nbeta"], member["gamma"])
        assert member["std_error"] < 0.03 * truth
        assert abs(member["llc"] - truth) < 4 * member["std_error"]
        truths.append(truth)
    assert min(abs(one - other) for one in truths for other in truths if one is not other) > 0.03


def test_members_have_chains_of_their_own(measured: Mapping[str, Any]):
    """At the LLC's own scale there is nothing else that could differ."""
    same = LLC.model_copy(update={"stability": StabilitySettings(num_members=2, spread=1.0)})
    (found,) = evaluate(OBJECTIVE, torch.zeros(1, 3), MeasureSettings(loss=None, llc=same))
    chains = [found["llc"].details["per_chain"], *(one["per_chain"] for one in found["llc"].details["members"])]
    assert [one["epsilon"] for one in found["llc"].details["members"]] == [pytest.approx(LLC.sampler.epsilon)] * 2
    correlations = np.corrcoef(chains)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 0.8
    assert found["llc"].details["per_chain"] == measured["per_chain"]  # an ensemble changes nothing of the LLC


def test_no_member_is_less_stable_and_each_is_within_the_spread():
    for member in range(64):
        found = settings_of(member, LLC, 1.5)
        assert LLC.nbeta is not None
        assert found.nbeta is not None
        assert 1 / 1.5 <= found.nbeta / 100 <= 1.5
        assert 1 / 1.5 <= found.gamma / 20 <= 1.5
        for h in (0.0, 1.0, 1e3):
            ours = LLC.sampler.epsilon * (LLC.nbeta * h + LLC.gamma)
            theirs = found.sampler.epsilon * (found.nbeta * h + found.gamma)
            assert theirs <= ours * (1 + 1e-12)
        step = at_scale(LLC, found.nbeta, found.gamma).sampler.epsilon
        assert found.sampler.epsilon == pytest.approx(factors(member, 1.5)[2] * step)
    spread = np.log([factors(member, math.e) for member in range(8)])
    assert (spread.max(axis=0) - spread.min(axis=0) > [1.2, 1.2, 0.6]).all()


def test_a_schedule_is_thinned_but_for_its_ends():
    for member in range(8):
        mask = kept(member, 50, 0.8)
        assert (mask.sum(), mask[0], mask[-1]) == (40, True, True)
    assert not np.array_equal(kept(0, 50, 0.8), kept(1, 50, 0.8))
    assert kept(0, 3, 0.1).all()
    assert kept(0, 2, 0.1).all()
    assert kept(0, 50, 1.0).all()


# Survival -------------------------------------------------------------------------------------------------------------

ENDS = ("from_step", "from_step_low", "from_step_high", "to_step", "to_step_low", "to_step_high")
PROBABILITIES = {"probability_a": 1.0, "probability_b": 0.0, "probability_neither": 0.0}
LOSS = {"delta_loss": -1.0, "delta_loss_std_error": 0.1, "reason": ""}
STEPS = np.unique(np.concatenate([[0], np.geomspace(1, 3000, 50).round()])).astype(np.int64)
X = np.log1p(STEPS)


def rise(start: float, stop: float, height: float) -> np.ndarray:
    return height * np.clip((X - start) / (stop - start), 0, 1)


def curve(llc: np.ndarray, seed: int, std_error: float = 0.3) -> Curve:
    noise = std_error * np.random.default_rng(seed).standard_normal((len(llc), 4)) * 2
    llc = llc + noise.mean(axis=1)
    s, loss = noise.std(axis=1, ddof=1) / 2, 3 - rise(2, 3, 2)
    return Curve.of(STEPS.tolist(), llc.tolist(), s.tolist(), loss.tolist(), [0.01] * len(llc))


def transitions(main: np.ndarray, members: list[np.ndarray]) -> list[Stage]:
    found = read_with_members(
        curve(main, 0), [curve(one, 1 + seed) for seed, one in enumerate(members)], StageSettings(), 0.8
    )
    return [stage for stage in found if stage.kind == "transition"]


def test_a_transition_that_every_scale_shows_survives_and_one_of_this_scale_alone_does_not():
    """The second, a fall, is there in the main measurement and in one of four members."""
    both, one = rise(2, 3, 20) - rise(5, 6, 6), rise(2, 3, 20)
    found = transitions(both, [both * 1.3, one, one * 0.7, one])
    assert [(stage.type, stage.survival) for stage in found] == [("A", 1.0), ("B", 0.25)]
    stability = found[0].details["stability"]
    assert (stability["members"], stability["survived"], stability["survived_with_type"]) == (4, 4, 4)
    assert len(stability["from_steps"]) == 4
    assert all(abs(np.log1p(step) - 2) < 0.5 for step in stability["from_steps"])


def test_one_elsewhere_or_the_other_way_is_not_the_same():
    here = rise(2, 3, 20)
    found = transitions(here, [rise(5, 6, 20), 20 - here, here])
    assert [stage.survival for stage in found] == [pytest.approx(1 / 3)]


def test_two_that_a_member_has_as_one_do_not_both_survive():
    def stage(*steps: int) -> Stage:
        place = dict(zip(ENDS, steps, strict=True))
        return Stage("transition", "A", **place, **PROBABILITIES, delta_llc=5.0, delta_llc_std_error=0.1, **LOSS)

    first, second = stage(100, 90, 110, 200, 190, 230), stage(220, 190, 240, 400, 380, 420)
    merged = stage(100, 90, 110, 400, 380, 420)
    found = survivals([first, second], [[merged], [first, second], [second, first]])
    assert sorted(one["survival"] for one in found) == pytest.approx([2 / 3, 1])


def test_without_an_ensemble_nothing_is_said():
    (found,) = transitions(rise(2, 3, 20), [])
    assert found.survival is None
    assert "stability" not in found.details


def test_a_plateau_has_no_survival():
    main = curve(rise(2, 3, 20), 0)
    found = read_with_members(main, [replace(main)], StageSettings())
    assert {stage.survival for stage in found if stage.kind == "plateau"} == {None}
