"""Planted stages: they are what they say, and are found again."""

import numpy as np
import pytest

from bench.planted import plant
from bench.stages import Found, matches, ours, score


def test_the_same_seed_plants_the_same():
    first, again, other = plant(3, 0.05), plant(3, 0.05), plant(4, 0.05)
    assert first.transitions == again.transitions != other.transitions
    np.testing.assert_array_equal(first.curve.llc, again.curve.llc)


def test_what_is_planted_is_in_the_curve():
    """Without noise, where a transition starts and stops 5 % and 95 % of its change are done."""
    shares = []
    for seed in range(30):
        planted = plant(seed, 1e-9)
        known = np.isfinite(planted.curve.llc)
        assert [t.type for t in planted.transitions] == ["A" if t.delta_llc > 0 else "B" for t in planted.transitions]
        for t in planted.transitions:
            change = np.diff(np.interp([t.start, t.stop], planted.x[known], planted.curve.llc[known]))[0]
            shares.append(change / t.delta_llc)
            assert planted.x[0] <= t.start < t.stop <= planted.x[-1]
    assert np.median(shares) == pytest.approx(0.9, abs=0.02)
    assert np.mean(np.abs(np.subtract(shares, 0.9)) < 0.12) > 0.95  # but where points are missing there


def test_some_are_of_neither_type_if_asked_for():
    kinds, few = [], 0
    for seed in range(40):
        planted = plant(seed, 1e-9, neither=True)
        curve = planted.curve
        few += curve.loss_std_error[0] > 0.05 * np.ptp(curve.loss)
        largest = max((-t.delta_loss for t in planted.transitions if t.type == "A"), default=np.ptp(curve.loss))
        kinds += [t.type for t in planted.transitions]
        for t in planted.transitions:
            if t.type is None:  # the loss goes the LLC's way
                assert t.delta_loss * t.delta_llc > 0
                assert abs(t.delta_loss) > 0.3 * largest
    assert 0.15 < np.mean([kind is None for kind in kinds]) < 0.4
    assert 10 < few < 30


def test_a_transition_is_matched_once_and_in_its_direction():
    planted = plant(3, 0.05)
    (true, *_) = planted.transitions
    right = Found(true.start, true.stop, true.delta_llc, true.type, (true.start, true.start + 1), (0.0, 0.1))
    assert matches(planted, [right, right]) == [(true, right)]
    assert matches(planted, [right._replace(delta_llc=-true.delta_llc)]) == []
    assert matches(planted, [right._replace(start=true.stop + 5, stop=true.stop + 6)]) == []
    scored = score("one", 0.05, 3, planted, [right, right])
    assert (scored.planted, scored.found, len(scored.pairs)) == (len(planted.transitions), 2, 1)
    assert scored.pairs[0] == {"shape": true.shape, "type": True, "errors": [0.0, 0.0], "covers": [True, False]}


def test_most_are_found_with_types_and_intervals():
    """A small part of `make bench-stages`."""
    scores = [score("ours", 0.05, seed, planted, ours(planted)) for seed in range(12) if (planted := plant(seed, 0.05))]
    pairs = [pair for one in scores for pair in one.pairs]
    assert 2 * len(pairs) / sum(one.planted + one.found for one in scores) > 0.93
    assert np.mean([pair["type"] for pair in pairs]) > 0.95
    assert np.mean([hit for pair in pairs for hit in pair["covers"]]) > 0.8
