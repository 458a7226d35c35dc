"""Stages read back from curves that were drawn with them, under noise; and none read where none was drawn."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.published import LANGUAGE_MODEL, LINEAR_REGRESSION, Published, drawn, is_found, rebuilt
from llc.settings import StageSettings
from llc.stages import Curve, Stage, read_stages

Floats = NDArray[np.float64]
SETTINGS = StageSettings()


def checkpoints(last: int, num_log: int, num_linear: int = 0) -> NDArray[np.int64]:
    """Step 0, then logarithmically spaced steps, with linearly spaced ones among them."""
    log, linear = np.geomspace(1, last, num_log).round(), np.linspace(0, last, num_linear).round()
    return np.unique(np.concatenate([[0], log, linear])).astype(np.int64)


def read(
    steps: NDArray[np.int64], llc: Floats, llc_s: float | Floats, loss: Floats | None = None, loss_s: float = 1e-3
) -> list[Stage]:
    errors = np.broadcast_to(llc_s, llc.shape).tolist()
    losses = np.full(len(steps), 1.0) if loss is None else loss
    curve = Curve.of(steps.tolist(), llc.tolist(), errors, losses.tolist(), [loss_s] * len(steps))
    return read_stages(curve, SETTINGS)


def transitions(stages: list[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.kind == "transition"]


def types(stages: list[Stage]) -> str:
    return "".join(stage.type or "-" for stage in transitions(stages))


# Where there is nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 100])
def test_flat_noise_makes_hardly_a_transition(n: int):
    """Errors come from four chains, as they do."""
    found = 0
    for seed in range(25):
        chains = 100 + 10 * np.random.default_rng(seed).standard_normal((n, 4))
        found += bool(transitions(read(np.arange(n), chains.mean(1), chains.std(1, ddof=1) / 2)))
    assert found <= 2


def test_a_flat_curve_is_one_plateau():
    (stage,) = read(np.array([0, 5, 9, 40]), np.array([7.0, 7.1, 6.9, 7.0]), 0.1, np.array([2.0, 1.5, 1.2, 1.0]))
    assert (stage.kind, stage.type, stage.from_step, stage.to_step) == ("plateau", None, 0, 40)
    assert (stage.from_step_low, stage.from_step_high, stage.to_step_low, stage.to_step_high) == (0, 0, 40, 40)
    assert (stage.probability_a, stage.probability_b, stage.probability_neither) == (None, None, None)
    assert stage.delta_loss == pytest.approx(-1.0, abs=0.01)
    assert stage.delta_loss_std_error is not None
    assert 1e-3 < stage.delta_loss_std_error < 1e-2
    assert stage.delta_llc == pytest.approx(0, abs=0.1)
    assert stage.details["llc"] == pytest.approx(7.0, abs=0.1)
    assert stage.details["llc_std_error"] == pytest.approx(0.05, rel=0.5)
    assert "does not change beyond its noise" in stage.reason


def test_a_constant_curve_without_errors_is_one_plateau():
    (stage,) = read(np.arange(5), np.zeros(5), 0.0)
    assert stage.kind == "plateau"


@pytest.mark.parametrize("llc", [[], [1.0, 9.0], [1.0, None, math.nan, 9.0, math.inf]])
def test_fewer_than_three_points_have_no_stages(llc: list[float | None]):
    n = len(llc)
    assert read_stages(Curve.of(list(range(n)), llc, [0.1] * n, [1.0] * n, [0.1] * n), SETTINGS) == []


# One transition -------------------------------------------------------------------------------------------------------

STEPS = checkpoints(10_000, 40)


def ramp(old: float, new: float, first: int = 12, last: int = 20) -> Floats:
    """From one level to another, straight in log(step + 1) between two checkpoints of STEPS."""
    x = np.log1p(STEPS)
    return old + (new - old) * np.clip((x - x[first]) / (x[last] - x[first]), 0, 1)


def is_between(step: int, first: int, last: int) -> bool:
    """Whether a step is between two checkpoints of STEPS, or one of them."""
    return STEPS[first] <= step <= STEPS[last]


@pytest.mark.parametrize(
    ("llc", "loss", "kind"),
    [
        (ramp(20, 80), ramp(3, 1), "A"),
        (ramp(80, 20), ramp(1.0, 0.99) + ramp(2.0, 0.0, 0, 8), "B"),
        (ramp(80, 20), ramp(1.0, 1.01) + ramp(2.0, 0.0, 0, 8), "B"),
        (ramp(80, 20), 2.0 + ramp(0.5, 0, 0, 8), "B"),
        (ramp(80, 20), np.full(len(STEPS), 2.0), "B"),
        (ramp(20, 80), ramp(1, 3), "-"),
        (ramp(20, 80), np.full(len(STEPS), 2.0), "-"),
        (ramp(80, 20), ramp(3, 1), "-"),
    ],
)
def test_a_transition_is_found_where_it_is_with_its_type(llc: Floats, loss: Floats, kind: str):
    delta = llc[-1] - llc[0]
    for seed in range(4):
        noisy = llc + np.random.default_rng(seed).standard_normal(len(llc))
        stages = read(STEPS, noisy, 1.0, loss)
        (found,) = transitions(stages)
        assert [stage.kind for stage in stages] == ["plateau", "transition", "plateau"]
        assert types(stages) == kind, found.reason
        assert is_between(found.from_step, 11, 13)
        assert is_between(found.to_step, 19, 21)
        assert found.delta_llc_std_error < 1.0
        assert abs(found.delta_llc - delta) < 4 * found.delta_llc_std_error
        # From 5 % of the LLC's change to 95 %; the loss goes on beside it in some of these.
        assert found.delta_loss == pytest.approx(loss[20] - loss[12], abs=0.15 * abs(loss[20] - loss[12]) + 0.007)
        assert found.probability_a is not None
        assert found.probability_b is not None
        assert found.probability_neither is not None
        chances = {"A": found.probability_a, "B": found.probability_b, "-": found.probability_neither}
        assert sum(chances.values()) == pytest.approx(1)
        assert chances[kind] > (0.9 if kind != "-" else 0.4)


@pytest.mark.parametrize(
    ("llc", "loss", "words"),
    [
        (ramp(20, 80), ramp(3, 1), "rises and the loss falls, in 100.0% of the paths"),
        (ramp(20, 80), ramp(1, 3), "rises and the loss falls, in 0.0% of the paths"),
        (ramp(80, 20), ramp(1.0, 0.9) + ramp(2.0, 0.0, 0, 8), "falls and the loss changes by [45].*%.*100.0% of the"),
        (ramp(80, 20), ramp(3, 1), "falls and the loss changes by (9.|100).*%.*slightly in 0.0% of the paths"),
        (ramp(80, 20), np.full(len(STEPS), math.nan), "falls; the loss, with its error, is not known"),
    ],
)
def test_the_reason_is_in_words(llc: Floats, loss: Floats, words: str):
    (found,) = transitions(read(STEPS, llc, 0.5, loss))
    assert re.search(words, found.reason), found.reason


@pytest.mark.parametrize("loss_s", [0.02, 1e-5])
def test_what_both_do_in_one_gap_between_checkpoints_belongs_together(loss_s: float):
    """Where in the gap each of them does it nobody has seen."""
    late = np.arange(18) > 8
    found = read(np.arange(18), np.where(late, 4.0, -5.0), 0.2, np.where(late, 0.0, 1.9), loss_s)
    (transition,) = transitions(found)
    assert (transition.type, transition.probability_a) == ("A", 1.0)
    assert transition.delta_loss == pytest.approx(-1.9, abs=0.1)


STAIR = [(0, 6.125, -0.01, 0.007), (27_000, 1.625, 7.38, 0.05), (150_000, 0.5, 13.64, 0.08), (350_000, 0, 18.82, 0.1)]
"""(first step, loss, LLC, its error) of a deep linear network's ranks, as one measured them: without any scatter."""


@pytest.mark.parametrize("seed", [0, 5, 11])
@pytest.mark.parametrize("wrong", [None, 25_000, 170_000])
def test_a_stair_is_a_transition_for_every_step(seed: int, wrong: int | None):
    """Also where the LLC of the last checkpoint before a step, or of the first after it, is far from anything: chains
    on the slope.
    """
    others = [] if wrong is None else [wrong]
    steps = np.unique(np.concatenate([[0, *others], np.geomspace(4600, 600_000, 45).round()])).astype(np.int64)
    level = np.searchsorted([first for first, *_ in STAIR], steps, side="right") - 1
    loss, llc, s = np.array(STAIR)[level, 1:].T
    llc, s = np.where(steps == wrong, -1.8e5, llc), np.where(steps == wrong, 2400.0, s)
    losses = loss.tolist(), [1e-8] * len(steps)
    found = read_stages(Curve.of(steps.tolist(), llc.tolist(), s.tolist(), *losses), StageSettings(seed=seed))
    assert types(found) == "AAA"
    assert all((stage.probability_a or 0) > 0.97 for stage in transitions(found))
    changes = [stage.delta_loss for stage in transitions(found)]
    assert changes == pytest.approx([-4.5, -1.125, -0.5], rel=0.03)


def test_slightly_is_by_the_side_of_the_run_s_other_transitions():
    """The loss falls by a tenth of its range in the second; but only where the LLC falls does it matter how much."""
    llc = ramp(20, 80, 8, 14) + ramp(0, -40, 22, 30)
    great, small = 2.0 * ramp(1, 0, 8, 14), 0.2 * ramp(1, 0, 8, 14)
    late = 0.1 * ramp(1, 0, 22, 30)
    assert types(read(STEPS, llc, 0.5, great + late)) == "AB"
    assert types(read(STEPS, llc, 0.5, small + late + ramp(2, 0, 0, 5))) == "A-"


@pytest.mark.parametrize(("fall", "loss_s", "read_as"), [(0.15, 0.1, "A-"), (0.15, 1e-3, "A-"), (0.0, 0.1, "AB")])
def test_slightly_is_not_for_want_of_a_large_data_set(fall: float, loss_s: float, read_as: str):
    """Of few samples the loss has a large error, but the same at every checkpoint: its changes are known well."""
    llc = ramp(20, 80, 10, 16) - ramp(0, 40, 25, 32)
    loss = ramp(3, 2.9, 10, 16) - ramp(0, fall, 25, 32)
    noise = 0.5 * np.random.default_rng(0).standard_normal(len(STEPS))
    assert types(read(STEPS, llc + noise, 0.5, loss, loss_s)) == read_as


def test_a_change_within_its_errors_is_not_a_transition_and_beyond_is():
    assert not transitions(read(STEPS, ramp(20, 24), 3.0))
    (found,) = transitions(read(STEPS, ramp(20, 24), 0.2))
    assert found.delta_llc == pytest.approx(4, rel=0.02)


def test_a_stricter_z_finds_less_and_the_strictest_nothing():
    def found(min_z: float) -> int:
        llc, n = ramp(20, 24), len(STEPS)
        settings = StageSettings(min_z=min_z)
        curve = Curve.of(STEPS.tolist(), llc.tolist(), [0.2] * n, [1.0] * n, [0.1] * n)
        return len(transitions(read_stages(curve, settings)))

    assert [found(min_z) for min_z in (1.0, 4.0, 10.0, 1000.0)] == [1, 1, 1, 0]


def test_a_change_that_is_a_small_share_of_the_curve_s_range_does_not_count():
    llc, loss = ramp(0, 1000, 2, 8), 2.0 + ramp(0.5, 0, 2, 8)
    assert types(read(STEPS, llc - ramp(0, 7), 0.01, loss)) == "A"
    assert types(read(STEPS, llc - ramp(0, 15), 0.01, loss)) == "AB"


def bent(slope: float) -> tuple[NDArray[np.int64], Floats]:
    """A rise in log(step + 1) by 40, on by this slope × 20, and by 40 again, each over as many checkpoints."""
    steps = checkpoints(10_000, 60)
    x = np.log1p(steps)
    knots = x[[10, 22, 28, 40]]
    y = np.interp(x, knots, np.cumsum([20, 40, slope * 40 * (knots[2] - knots[1]) / (knots[1] - knots[0]), 40]))
    return steps, y


@pytest.mark.parametrize(("slope", "read_as"), [(1.0, "A"), (0.6, "A"), (0.1, "AA"), (0.0, "AA")])
def test_a_rise_with_a_near_plateau_is_two(slope: float, read_as: str):
    steps, llc = bent(slope)
    stages = read(steps, llc, 0.1, 10 - llc / 20)
    assert types(stages) == read_as
    if read_as == "AA":
        first, second = transitions(stages)
        assert steps[21] <= first.to_step <= steps[24]
        assert steps[27] <= second.from_step <= steps[30]


@pytest.mark.parametrize("std_error", [1.0, 4.0])
def test_noise_makes_no_near_plateau(std_error: float):
    steps, llc = bent(1.0)
    found = 0
    for seed in range(20):
        noise = std_error * np.random.default_rng(seed).standard_normal(len(steps))
        found += types(read(steps, llc + noise, std_error, 10 - llc / 20)) != "A"
    assert found <= 1


def test_a_pause_of_a_moment_is_no_near_plateau():
    steps = checkpoints(10_000, 90)
    x = np.log1p(steps)
    ends = [8, 36, 37, 65]
    llc = np.interp(x, x[ends], [0, 50, 50, 100])
    assert x[37] - x[36] < 0.05 * (x[65] - x[37])
    assert types(read(steps, llc, 1e-3, 10 - llc / 20)) == "A"


# Points that can't be trusted -----------------------------------------------------------------------------------------


def test_diverged_and_wide_points_make_no_transition():
    llc, llc_s = 50 + np.random.default_rng(0).standard_normal(len(STEPS)), np.ones(len(STEPS))
    llc[[3, 20]] = math.nan
    llc[10], llc_s[10] = 5_000.0, 2_000.0
    llc[25], llc_s[25] = -900.0, 400.0
    (stage,) = read(STEPS, llc, llc_s)
    assert (stage.kind, stage.from_step, stage.to_step) == ("plateau", STEPS[0], STEPS[-1])


def test_a_wrong_point_with_a_usual_error_makes_no_transition():
    llc = 50 + np.random.default_rng(0).standard_normal(len(STEPS))
    llc[15] = 90.0
    (stage,) = read(STEPS, llc, 1.0)
    assert stage.details["llc"] == pytest.approx(50, abs=1)


def test_diverged_and_wide_points_hide_no_transition():
    llc, llc_s = ramp(20, 80), np.ones(len(STEPS))
    llc[[2, 15]] = math.nan
    llc[5], llc_s[5] = 5_000.0, 2_000.0
    llc[30], llc_s[30] = 20.0, 400.0
    llc[-1] = 81.0
    (found,) = transitions(read(STEPS, llc, llc_s, ramp(3, 1)))
    assert found.type == "A"
    assert is_between(found.from_step, 11, 13)
    assert is_between(found.to_step, 19, 21)
    assert found.delta_llc == pytest.approx(60, rel=0.03)


@pytest.mark.parametrize(("wild", "error"), [(1e6, 3e5), (1e8, 0.5), (1e8, 3e7), (1e12, 0.5), (50.0, 1e7)])
def test_one_wild_point_hides_no_transition_whatever_its_error(wild: float, error: float):
    llc = ramp(20, 80, 10, 16) - ramp(0, 40, 25, 32)
    llc = llc + 0.5 * np.random.default_rng(0).standard_normal(len(STEPS))
    errors, loss = np.full(len(STEPS), 0.5), ramp(3, 1, 10, 16)
    found = transitions(read(STEPS, llc, errors, loss))
    llc[20], errors[20] = wild, error
    beside = transitions(read(STEPS, llc, errors, loss))
    assert [stage.type for stage in beside] == [stage.type for stage in found] == ["A", "B"]
    for one, other in zip(found, beside, strict=True):
        assert other.delta_llc == pytest.approx(one.delta_llc, abs=0.5)
        assert np.log1p([other.from_step, other.to_step]) == pytest.approx(
            np.log1p([one.from_step, one.to_step]), abs=0.2
        )


def test_a_wild_loss_changes_no_type():
    llc, loss = ramp(20, 80, 10, 16) - ramp(0, 40, 25, 32), ramp(3, 1, 10, 16)
    llc = llc + 0.5 * np.random.default_rng(0).standard_normal(len(STEPS))
    loss[20] = 1e6
    assert types(read(STEPS, llc, 0.5, loss)) == "AB"


def test_one_error_that_is_small_by_luck_makes_no_transition():
    llc, llc_s = 50 + np.random.default_rng(3).standard_normal(len(STEPS)), np.ones(len(STEPS))
    llc[10], llc_s[10] = 53.0, 0.01
    assert not transitions(read(STEPS, llc, llc_s))


def test_noise_that_neighbours_share_makes_no_transition():
    """Chains with common random numbers err together: the mean wanders, and no more is seen in it than that."""
    found = [0, 0]
    for seed in range(12):
        errors = np.random.default_rng(seed).standard_normal((60, 4))
        for i in range(1, 60):
            errors[i] = 0.9 * errors[i - 1] + math.sqrt(1 - 0.9**2) * errors[i]
        chains = 100 + 10 * errors
        columns = list(range(60)), chains.mean(1).tolist(), [5.0] * 60, [1.0] * 60, [0.1] * 60
        for i, per_chain in enumerate((chains.tolist(), None)):
            found[i] += bool(transitions(read_stages(Curve.of(*columns, per_chain), SETTINGS)))
    assert found[0] <= 1
    assert found[1] >= 3


def test_stages_are_contiguous_whatever_the_curve():
    for seed in range(25):
        generator = np.random.default_rng(seed)
        llc = generator.standard_normal(30).cumsum() * 10 ** generator.uniform(-3, 3)
        llc[generator.random(30) < 0.1] = math.nan
        loss = generator.standard_normal(30)
        loss[generator.random(30) < 0.1] = math.nan
        steps = np.sort(generator.choice(5000, 30, replace=False))
        stages = read(steps, llc, np.abs(generator.standard_normal(30)), loss)
        kept = steps[np.isfinite(llc)]
        assert (stages[0].from_step, stages[-1].to_step) == (kept[0], kept[-1])
        assert all(before.to_step == after.from_step for before, after in pairwise(stages))
        for stage in stages:
            assert stage.from_step_low <= stage.from_step <= stage.from_step_high
            assert stage.to_step_low <= stage.to_step <= stage.to_step_high
            assert (stage.type is None) or (stage.delta_llc > 0) == (stage.type == "A")


def test_where_the_schedule_is_sparse_it_says_which_checkpoint_it_misses():
    x = np.log1p(STEPS)
    dense, sparse = np.arange(len(STEPS)), np.r_[0:11, 16:19, 23 : len(STEPS)]
    llc = ramp(20, 80, 13, 20)
    wanted = {}
    for name, kept in (("dense", dense), ("sparse", sparse)):
        (found,) = transitions(read(STEPS[kept], llc[kept], 0.1, ramp(3, 1)[kept]))
        wanted[name] = found.details["steps_wanted"]
    first, second = wanted["sparse"]
    assert first == pytest.approx(np.expm1((x[10] + x[16]) / 2), abs=1)
    assert second == pytest.approx(np.expm1((x[18] + x[23]) / 2), abs=1)
    # Where the noise is small even a dense schedule is what limits an end, by a gap between neighbours.
    for step in wanted["dense"]:
        after = int(np.searchsorted(STEPS, step))
        assert step == pytest.approx(np.expm1((x[after - 1] + x[after]) / 2), abs=1)


@pytest.mark.parametrize("steps", [[2**61, 2**61 + 1, 2**61 + 2, 2**62 - 1], [0, 1, 2, 2**62 - 1]])
def test_steps_too_large_to_be_told_apart(steps: list[int]):
    stages = read_stages(Curve.of(steps, [1.0, 2.0, 9.0, 9.0], [0.1] * 4, [2.0, 1.0, 1.0, 1.0], [0.1] * 4), SETTINGS)
    assert (stages[0].from_step, stages[-1].to_step) == (steps[0], steps[-1])


def test_the_same_curve_is_read_the_same():
    noisy = ramp(20, 80) + np.random.default_rng(0).standard_normal(len(STEPS))
    assert read(STEPS, noisy, 1.0, ramp(3, 1)) == read(STEPS, noisy, 1.0, ramp(3, 1))


# Whole runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knots",
    [
        [(2, 60.0), (60, 260.0), (1000, 3.0)],
        [(3, 60.0), (40, 260.0), (80, 260.0), (700, 3.0)],
    ],
    ids=["peak", "plateau"],
)
def test_memorisation_then_generalisation_is_an_a_then_a_b(knots: list[tuple[float, float]]):
    steps = checkpoints(1000, 46)
    assert len(steps) == 40
    llc, loss = drawn(steps.tolist(), knots), drawn(steps.tolist(), [(2, 3.97), (60, 0.05), (1000, 0.01)])
    runs = [
        read(steps, llc * (1 + 0.05 * np.random.default_rng(seed).standard_normal(len(steps))), 0.05 * llc, loss)
        for seed in range(10)
    ]
    assert [types(stages) for stages in runs].count("AB") >= 9
    rise, fall = transitions(runs[0])
    assert rise.delta_llc == pytest.approx(200, abs=30)
    assert fall.delta_llc == pytest.approx(-257, abs=30)
    assert rise.to_step <= 100 <= fall.to_step


@pytest.mark.parametrize("published", [LANGUAGE_MODEL, LINEAR_REGRESSION], ids=["language model", "linear regression"])
def test_published_stages_are_found_under_small_noise(published: Sequence[Published]):
    """All of them, with their types; the near-plateau between the third and the fourth of the linear regression, and
    the one between the last two of the language model, included.
    """
    for seed in range(3):
        stages = read_stages(rebuilt(published, 0.05, seed), SETTINGS)
        assert types(stages) == "".join(stage.type for stage in published)
        assert [is_found(published, ordinal, stages) for ordinal in range(len(published))] == [True] * len(published)
