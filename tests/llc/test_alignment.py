"""Families of runs with a planted common sequence: it is found again, and the run that is of another kind is named."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from bench.families import plant, planted_columns, score, transition
from llc.alignment import align
from llc.matching import Transition
from llc.needleman_wunsch import Alignments


def test_what_is_common_is_found_again_and_the_odd_run_is_named():
    found = score(range(300))
    assert found.right > 10_000
    assert found.precision > 0.995
    assert found.recall > 0.995
    assert found.whole >= 295
    assert found.named >= 0.95 * found.odd
    assert found.accused <= 0.015 * found.healthy


def test_hard_families():
    """Jitter that is half of the distance between transitions, and every other run has lost or found something."""
    found = score(range(1000, 1150), tempo=0.5, jitter=0.25, missing=0.1, extra=0.3)
    assert found.precision > 0.98
    assert found.recall > 0.98
    assert found.whole >= 144
    assert found.named >= 0.8 * found.odd
    assert found.accused <= 0.02 * found.healthy


@pytest.mark.parametrize("kind", [{}, {"tempo": 0.0}, {"missing": 0.1, "extra": 0.3}])
def test_of_runs_of_one_kind_few_are_outliers(kind: dict[str, float]):
    found = score(range(2000, 2100), has_odd=False, **kind)
    assert found.healthy > 1000
    assert found.accused <= 0.03 * found.healthy


def test_runs_of_very_different_tempo():
    """From a third to three times as long, and more: whole sequences lie beside the wrong ones."""
    found = score(range(3000, 3150), tempo=0.8, has_odd=False, jitter=0.05)
    assert found.precision > 0.98
    assert found.recall > 0.98
    errors = []
    for seed in range(3000, 3150):
        family = plant(seed, tempo=0.8, has_odd=False, jitter=0.05, missing=0.0, extra=0.0)
        if len(family.sizes) > 2:
            tempo = np.array([math.log(run.tempo or math.nan) for run in align(family.runs).runs])
            errors.append(tempo - (np.subtract(family.log_tempo, np.median(family.log_tempo))))
    error = np.concatenate(errors)
    assert len(error) > 1000
    assert np.nanmedian(np.abs(error)) < 0.05
    assert np.mean(np.abs(error) < 0.2) > 0.98


def test_the_mean_change_and_its_error():
    """Over families: the means lie about the planted ones as their errors say."""
    z = []
    for seed in range(4000, 4100):
        family = plant(seed, has_odd=False, missing=0.0, extra=0.0)
        found = align(family.runs)
        for k, common in zip(planted_columns(family, found), found.common, strict=True):
            if k is not None and common.support == len(family.runs) and common.delta_llc.std_error:
                truth = family.sizes[k] * math.exp(0.2**2 / 2)
                z.append((common.delta_llc.value - truth) / common.delta_llc.std_error)
                assert common.delta_llc.std_error < 0.25 * abs(truth)
    assert len(z) > 300
    assert np.std(z) == pytest.approx(1.08, abs=0.15)
    assert abs(np.mean(z)) < 0.2


THREE = [transition(20, 60, 10.0), transition(200, 500, 20.0), transition(2000, 3000, -5.0, -0.001)]


def changed(which: int, **changes: float) -> list[Transition]:
    run = list(THREE)
    run[which] = replace(run[which], **changes)
    return run


def test_what_runs_have_in_common():
    runs = [[replace(t, from_step=t.from_step + by, delta_llc=t.delta_llc + by) for t in THREE] for by in (-1, 0, 1)]
    rise, _, fall = align(runs).common
    assert (rise.support, rise.direction, rise.type, rise.types) == (3, "rise", "A", {"A": 3})
    assert (fall.support, fall.direction, fall.type, fall.types) == (3, "fall", "B", {"B": 3})
    assert (rise.from_step.median, rise.from_step.low, rise.from_step.high) == (20, 19, 21)
    assert (rise.to_step.median, rise.to_step.low, rise.to_step.high) == (60, 60, 60)
    assert rise.delta_llc.value == pytest.approx(10)
    assert rise.delta_llc.std_error == pytest.approx(1 / math.sqrt(3))
    assert rise.delta_loss is not None
    assert rise.delta_loss.value == pytest.approx(-0.1)
    assert (rise.from_loss, rise.to_loss) == (None, None)
    assert fall.spread is not None
    assert 0 < fall.spread < 0.01


def test_identical_runs_have_no_spread():
    found = align([THREE] * 6)
    for common in found.common:
        assert common.support == 6
        assert common.spread == pytest.approx(0, abs=1e-12)
        assert common.delta_llc.std_error == pytest.approx(0, abs=1e-12)
        assert common.from_step.low == common.from_step.high
    for run in found.runs:
        assert (run.matched, run.missing, run.extra, run.far, run.reasons) == ([0, 1, 2], [], [], [], [])
        assert (run.tempo, run.differences, run.verdict) == (pytest.approx(1), 0, "ok")


@pytest.mark.parametrize(
    ("run", "what", "by"),
    [
        (changed(1, from_step=600, to_step=1500), "late", 3.0),
        (changed(1, from_step=66, to_step=166), "early", 1 / 3.0),
        (changed(0, delta_llc=80.0), "large", 8.0),
        (changed(2, delta_llc=-0.5, delta_llc_std_error=0.02), "small", 0.1),
    ],
)
def test_what_is_far_off(run: list[Transition], what: str, by: float):
    found = align([*[THREE] * 6, run])
    assert [one.support for one in found.common] == [7, 7, 7]
    (far,) = found.runs[-1].far
    assert (far.what, far.by) == (what, pytest.approx(by, rel=0.02))
    assert found.runs[-1].verdict == "outlier"
    (reason,) = found.runs[-1].reasons
    assert f" is {what}: " in reason
    assert all(other.verdict == "ok" and not other.far for other in found.runs[:-1])


def test_a_change_that_is_not_well_known_is_not_far_off():
    """A tenth of the usual ΔLLC, but as much is within three of its errors."""
    run = align([*[THREE] * 6, changed(2, delta_llc=-0.5, delta_llc_std_error=0.4)]).runs[-1]
    assert (run.matched, run.far, run.differences) == ([0, 1, 2], [], 0)


def test_a_slow_run_is_slow_and_nothing_in_it_is_late():
    slow = [replace(t, from_step=5 * t.from_step, to_step=5 * t.to_step) for t in THREE]
    (*others, run) = align([*[THREE] * 6, slow]).runs
    assert (run.matched, run.far) == ([0, 1, 2], [])
    assert run.tempo == pytest.approx(5, rel=0.05)
    assert (run.verdict, run.reasons) == ("outlier", ["it takes 5 times as long as the usual run"])
    assert all(other.tempo == pytest.approx(1) for other in others)


def test_missing_extra_and_reversed():
    lacks, turned = THREE[:1] + THREE[2:], changed(1, delta_llc=-20.0)
    has_more = [*THREE, transition(30_000, 40_000, 2.0)]
    runs = align([*[THREE] * 9, lacks, has_more, turned]).runs
    assert (runs[9].missing, runs[9].extra, runs[9].matched, runs[9].differences) == ([1], [], [0, None, 1], 1)
    assert runs[9].reasons == ["it lacks the rise of the LLC from about step 200 to 500, which 10 of 12 runs have"]
    assert (runs[10].missing, runs[10].extra, runs[10].differences) == ([], [3], 1)
    assert runs[10].reasons == ["its rise of the LLC from step 30000 to 40000 is not common"]
    assert (runs[11].missing, runs[11].extra, runs[11].differences) == ([1], [1], 3)
    assert [(one.transition, one.common) for one in runs[11].reversed] == [(1, 1)]
    assert [run.verdict for run in runs] == ["ok"] * 11 + ["outlier"]


def test_where_all_differ_none_is_an_outlier():
    generator = np.random.default_rng(0)
    runs = []
    for _ in range(12):
        steps = np.sort(np.exp(generator.uniform(2, 10, 8))).astype(int).reshape(4, 2)
        runs.append([transition(s, e, generator.choice([-1, 1]) * 10 ** generator.uniform(0, 2)) for s, e in steps])
    assert sum(run.verdict == "outlier" for run in align(runs).runs) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_runs_does_not_matter(seed: int):
    """To the last bit."""
    family = plant(seed, extra=0.5, missing=0.2)
    order = np.random.default_rng(seed).permutation(len(family.runs))
    plain, shuffled = align(family.runs), align([family.runs[row] for row in order])
    assert shuffled.common == plain.common
    assert shuffled.runs == [plain.runs[row] for row in order]


def test_what_the_first_sequence_lacks_is_gained():
    """Each run lacks another of its four transitions."""
    four = [*THREE, transition(20_000, 50_000, 40.0)]
    found = align([four[:k] + four[k + 1 :] for k in range(4)] * 2)
    assert [one.support for one in found.common] == [6, 6, 6, 6]
    assert [run.missing for run in found.runs] == [[0], [1], [2], [3]] * 2
    assert not any(run.extra for run in found.runs)


def test_half_of_the_runs_make_a_common_transition_and_fewer_do_not():
    assert [one.support for one in align([THREE, THREE, THREE[:2], THREE[:2]]).common] == [4, 4, 2]
    assert [one.support for one in align([THREE, THREE[:2], THREE[:2], THREE[:2]]).common] == [4, 4]
    assert [one.support for one in align([THREE, THREE[:2]]).common] == [2, 2]


def test_few_runs_or_none():
    assert align([]).common == []
    assert align([[]]).runs[0].verdict == "ok"
    assert [(run.matched, run.tempo, run.verdict) for run in align([[], [], []]).runs] == [([], None, "ok")] * 3
    alone = align([THREE])
    assert [(one.support, one.spread, one.delta_llc.std_error) for one in alone.common] == [(1, None, None)] * 3
    assert (alone.runs[0].matched, alone.runs[0].verdict) == ([0, 1, 2], "ok")
    two = align([THREE, [transition(t.from_step, t.to_step, -t.delta_llc) for t in THREE]])
    assert two.common == []
    assert [(run.extra, run.verdict) for run in two.runs] == [([0, 1, 2], "ok")] * 2


def test_a_run_without_transitions_among_others():
    found = align([THREE, [], THREE, THREE])
    assert [one.support for one in found.common] == [3, 3, 3]
    assert (found.runs[1].missing, found.runs[1].verdict) == ([0, 1, 2], "outlier")


def test_of_one_match_nobody_can_tell_a_tempo():
    found = align([[THREE[0]], [THREE[0]], [THREE[0]], [transition(60, 180, 10.0)]])
    assert [run.tempo for run in found.runs] == [None] * 4
    assert [far.what for far in found.runs[3].far] == ["late"]


def test_numbers_of_any_size():
    runs = [
        [Transition(0, 0, 1e-99, 1e300, 1e99), Transition(2**61, 2**62, -1e99, 0.0)],
        [Transition(0, 1, 1e99), Transition(3, 3, -1e-99)],
        [Transition(0, 2**62, 1.0), Transition(2**61, 2**62, -1e99)],
    ]
    assert [one.support for one in align(runs).common] == [2]
    runs = [[replace(t, from_loss=1e99 * row, to_loss=-1e-99) for t in run] for row, run in enumerate(runs)]
    assert len(align(runs, "loss").runs) == 3
    tiny = [[replace(t, from_loss=1e-320 * row, to_loss=0.0) for t in run] for row, run in enumerate(runs)]
    with np.errstate(invalid="raise"):
        assert len(align(tiny, "loss").runs) == 3


def at_loss(speed: np.ndarray, losses: np.ndarray, sizes: np.ndarray) -> list[Transition]:
    """A run that reaches each loss when it likes."""
    steps = np.exp(np.cumsum(speed)).round().astype(int)
    return [
        Transition(int(steps[2 * k]), int(steps[2 * k + 1]), size, from_loss=losses[2 * k], to_loss=losses[2 * k + 1])
        for k, size in enumerate(sizes)
    ]


def test_by_the_loss_runs_of_any_speed_are_aligned():
    """Each stage takes each run a time of its own; four transitions alike in all but their loss, of which some are
    missing: only the axis of the loss can tell which.
    """
    generator = np.random.default_rng(0)
    right = {"step": 0, "loss": 0}
    count = 0
    for _ in range(40):
        runs, truths = [], []
        for _ in range(10):
            losses = np.array([4.0, 3.4, 3.2, 2.5, 2.2, 1.6, 1.5, 1.1]) + 0.03 * generator.standard_normal(8)
            run = at_loss(generator.uniform(0.2, 2, 8), losses, np.full(4, 10.0))
            kept = np.flatnonzero(generator.random(4) > 0.15)
            runs.append([run[k] for k in kept])
            truths.append(kept)
        count += sum(map(len, runs))
        for axis in ("step", "loss"):
            found = align(runs, axis)
            for run, truth in zip(found.runs, truths, strict=True):
                right[axis] += sum(i is not None and truth[i] == k for k, i in enumerate(run.matched))
            if axis == "loss":
                assert all(run.tempo is None for run in found.runs)
                assert found.common[0].from_loss is not None
                assert found.common[0].from_loss.median == pytest.approx(4.0, abs=0.05)
                assert found.common[0].spread == pytest.approx(0.03 / math.sqrt(2), abs=0.02)
    assert right["loss"] > 0.985 * count
    assert right["step"] < 0.95 * count


def test_a_transition_at_another_loss_is_named():
    losses = np.array([4.0, 3.4, 3.2, 2.5])
    runs = [at_loss(np.full(4, 1.0 + 0.1 * row), losses, np.array([10.0, 20.0])) for row in range(6)]
    runs[2] = [runs[2][0], replace(runs[2][1], from_loss=2.4, to_loss=1.7)]
    (far,) = align(runs, "loss").runs[2].far
    assert (far.transition, far.what, far.by) == (1, "late", pytest.approx(-0.8))
    assert "at a loss 0.8 below the usual one" in align(runs, "loss").runs[2].reasons[0]


def test_hundreds_of_differences():
    def run(sign: int, shift: int) -> list[Transition]:
        return [Transition(1000 * k + shift, 1000 * k + 900 + shift, 10.0 * sign) for k in range(1, 51)]

    found = align([run(1, 0), run(1, 0), run(-1, 500)]).runs
    assert found[2].differences > 171  # which no float has the factorial of
    assert [one.verdict for one in found] == ["ok", "ok", "outlier"]


def slowest(cost: np.ndarray, skip: np.ndarray, gap: np.ndarray) -> float:
    """The least cost of an alignment, by trying all."""
    items, columns = cost.shape
    best = math.inf
    for size in range(min(items, columns) + 1):
        for left in itertools.combinations(range(items), size):
            for right in itertools.combinations(range(columns), size):
                matches = sum(cost[i, k] for i, k in zip(left, right, strict=True))
                rest = skip.sum() - skip[list(left)].sum() + gap.sum() - gap[list(right)].sum()
                best = min(best, matches + rest)
    return best


def test_the_cheapest_of_all_alignments():
    generator = np.random.default_rng(0)
    for _ in range(60):
        items, columns = generator.integers(0, 5, 2)
        cost = np.where(
            generator.random((3, items, columns)) < 0.3, np.inf, generator.exponential(2, (3, items, columns))
        )
        skip, gap = generator.exponential(1, (3, items)), generator.exponential(1, columns)
        alignments = Alignments(cost, skip, gap)
        totals, ways = alignments.total, alignments.matched(np.arange(3))
        for one in range(3):
            assert totals[one] == pytest.approx(slowest(cost[one], skip[one], gap))
            matched = ways[one] >= 0
            assert (np.diff(ways[one][matched]) > 0).all()
            used = ways[one][matched]
            paid = cost[one][used, np.flatnonzero(matched)].sum() + gap[~matched].sum()
            assert paid + np.delete(skip[one], used).sum() == pytest.approx(totals[one])
