"""What changes at a transition, and what doesn't, with known changes under known noise."""

import math

import numpy as np
import pytest

from llc.evidence import changes_at
from llc.settings import StageSettings

STEPS = np.unique(np.concatenate([[0], np.geomspace(1, 3000, 60).round()])).astype(np.int64)
X = np.log1p(STEPS)
TRANSITIONS = [(6, 19), (148, 402)]  # about x = 2 … 3 and 5 … 6
SETTINGS = StageSettings()


def bend(start: float, stop: float) -> np.ndarray:
    return np.clip((X - start) / (stop - start), 0, 1)


FIRST, SECOND = bend(2, 3), bend(5, 6)


def changes(y: np.ndarray, s: float | None):
    return changes_at(TRANSITIONS, STEPS.tolist(), y.tolist(), None if s is None else [s] * len(y), SETTINGS)


@pytest.mark.parametrize("has_errors", [True, False])
def test_changes_are_what_they_are_within_their_errors(has_errors: bool):
    """The errors are small beside the change, and are those that the noise has."""
    off, errors = [], []
    for seed in range(60):
        y = 3 * FIRST - 2 * SECOND + 0.2 * np.random.default_rng(seed).standard_normal(len(X))
        for change, truth in zip(changes(y, 0.2 if has_errors else None), (3, -2), strict=True):
            assert change is not None
            assert change.std_error < 0.3
            assert change.changes
            assert change.share == pytest.approx(abs(truth) / np.ptp(y), abs=0.15)
            off.append((change.value - truth) / change.std_error)
            errors.append(change.std_error)
    assert np.mean(errors) == pytest.approx(0.2 * math.sqrt(2 / 3), rel=0.1)
    assert abs(np.mean(off)) < 0.5
    assert 0.75 < np.std(off) < 1.35


def test_a_curve_changes_where_it_does_only():
    there, not_there = changes(FIRST + 0.01 * np.random.default_rng(0).standard_normal(len(X)), None)
    assert there is not None
    assert not_there is not None
    assert (there.changes, not_there.changes) == (True, False)
    assert there.z > 50
    assert abs(not_there.z) < 4


def test_a_curve_that_was_constant_for_long_has_the_noise_that_is_there():
    quiet = 0.6 * X[-1] > X
    found = []
    for seed in range(200):
        y = np.where(quiet, 0.0, np.random.default_rng(seed).standard_normal(len(X)))
        (change,) = changes_at([(600, 1200)], STEPS.tolist(), y.tolist(), None, SETTINGS)
        assert change is not None
        assert 0.2 < change.std_error < 2
        found.append(change.changes)
    assert np.mean(found) < 0.02
    first, second = changes(np.where(X < 2.5, 0.0, 1.0), None)
    assert first is not None
    assert second is not None
    assert (first.changes, second.changes) == (True, False)


@pytest.mark.parametrize("has_errors", [True, False])
def test_noise_hardly_ever_changes(has_errors: bool):
    found = [
        change.changes
        for seed in range(200)
        for change in changes(np.random.default_rng(seed).standard_normal(len(X)), 1.0 if has_errors else None)
        if change is not None
    ]
    assert len(found) == 400
    assert sum(found) <= 4


def test_a_change_that_is_sure_but_a_small_share_does_not_count():
    _, second = changes(100 * FIRST + SECOND, 0.01)
    assert second is not None
    assert second.z > 50
    assert not second.changes


def test_values_that_are_missing_are_left_out():
    y: list[float | None] = [None if i % 3 == 0 else float(v) for i, v in enumerate(FIRST)]
    y[4] = math.nan
    first, second = changes_at(TRANSITIONS, STEPS.tolist(), y, None, SETTINGS)
    assert first is not None
    assert second is not None
    assert first.value == pytest.approx(1, abs=0.02)
    assert second.value == pytest.approx(0, abs=1e-9)


def test_the_largest_numbers_that_may_be_posted_are_survived():
    first, second = changes(np.where(FIRST > 0.5, -1.7e308, 1.7e308), None)
    assert first is second is None
    first, second = changes(np.where(FIRST > 0.5, -1e149, 1e149), None)
    assert first is not None
    assert first.changes


def test_what_is_not_known_on_one_side_is_not_known():
    y: list[float | None] = [float(v) if x > 2.5 else None for v, x in zip(FIRST, X, strict=True)]
    first, second = changes_at(TRANSITIONS, STEPS.tolist(), y, None, SETTINGS)
    assert first is None
    assert second is not None
    assert changes_at(TRANSITIONS, [1, 2], [1.0, 2.0], None, SETTINGS) == [None, None]
    assert changes_at([], STEPS.tolist(), FIRST.tolist(), None, SETTINGS) == []


@pytest.mark.parametrize("std_error", [None, [0.1] * 8])
def test_steps_that_logarithms_can_not_tell_apart(std_error: list[float] | None):
    steps, values = [10**15 + n for n in range(8)], [1.0] * 4 + [5.0] * 4
    (change,) = changes_at([(10**15 + 3, 10**15 + 4)], steps, values, std_error, SETTINGS)
    assert change is not None
    assert change.value == 4.0
    assert change.changes


def test_a_constant_changes_nowhere():
    for change in changes(np.full(len(X), 7.0), None):
        assert change is not None
        assert (change.value, change.share, change.changes) == (0.0, 0.0, False)


def test_a_neighbouring_transition_is_not_taken_for_this_one():
    """Its far side is out of reach, though the three nearest checkpoints are there."""
    early, late = changes_at([(6, 7), (8, 19)], [0, 5, 8, 19, 50, 90], [0, 0, 1, 3, 3, 3], [0.01] * 6, SETTINGS)
    assert early is not None
    assert late is not None
    assert early.value == pytest.approx(1, abs=0.01)
    assert late.value == pytest.approx(2, abs=0.01)
