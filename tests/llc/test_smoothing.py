"""Paths of a curve against the curve: they hold it as often as they say, and are much narrower than the noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from llc.smoothing import NUM_DRAWS, Paths, Points, SharedNoise, shared_noise, smooth

Floats = NDArray[np.float64]
X = np.linspace(0, 10, 80)


def bent(x: Floats) -> Floats:
    """Flat, up, flat, down: with corners, as plateaus have."""
    return np.asarray(np.interp(x, [0, 3, 4.5, 7, 8, 10], [20, 20, 60, 60, 45, 45]), dtype=np.float64)


def wave(x: Floats) -> Floats:
    """Smooth everywhere."""
    return 40 + 15 * np.sin(x)


def smoothed(y: Floats, s: Floats, seed: int = 0, noise: SharedNoise | None = None) -> Paths:
    return alone(X, y, s, seed, noise)


def alone(x: Floats, y: Floats, s: Floats, seed: int = 0, noise: SharedNoise | None = None) -> Paths:
    (paths,) = smooth(x, [Points(y, s, noise or SharedNoise())], np.random.default_rng(seed))
    return paths


def autoregressive(shape: tuple[int, int], memory: float, seed: int) -> Floats:
    errors = np.random.default_rng(seed).standard_normal(shape)
    for i in range(1, shape[0]):
        errors[i] = memory * errors[i - 1] + math.sqrt(1 - memory**2) * errors[i]
    return errors


@pytest.mark.parametrize("curve", [bent, wave])
def test_the_curve_is_where_the_paths_say_and_they_say_more_than_the_points(curve: Callable[[Floats], Floats]):
    s = 0.5 + 0.1 * X
    held, widths = [], []
    for seed in range(6):
        paths = smoothed(curve(X) + s * np.random.default_rng(seed).standard_normal(len(X)), s, seed)
        low, high = np.quantile(paths.at_points, [0.05, 0.95], axis=0)
        held.append((low <= curve(X)) & (curve(X) <= high))
        widths.append((high - low) / (2 * 1.645 * s))
    assert 0.3 < np.mean(widths) < 0.75
    assert 0.8 < np.mean(held) < 0.99


def test_slopes_are_those_of_the_curve():
    paths = smoothed(wave(X) + 0.2 * np.random.default_rng(0).standard_normal(len(X)), np.full(len(X), 0.2))
    error = paths.slope[:, :: paths.stride].mean(axis=0) - 15 * np.cos(X)
    assert np.abs(error[3:-3]).max() < 2.5
    assert np.sqrt((error[3:-3] ** 2).mean()) < 1.0


def test_what_is_not_seen_is_uncertain():
    seen = np.r_[0:30, 50:80]
    paths = alone(X[seen], wave(X[seen]), np.full(60, 0.1))
    spread = paths.value.std(axis=0)
    gap = (paths.x > X[32]) & (paths.x < X[47])
    beside = (paths.x < X[27]) | (paths.x > X[52])
    assert gap.sum() == 3  # the bridge between the two points beside it
    assert spread[gap].min() > 5 * np.median(spread[beside])


def test_a_wrong_point_moves_nothing():
    s, y = np.full(len(X), 0.5), bent(X) + 0.5 * np.random.default_rng(0).standard_normal(len(X))
    wrong = y.copy()
    wrong[[20, 60]] += [15, -20]
    moved = smoothed(wrong, s).at_points.mean(axis=0) - smoothed(y, s).at_points.mean(axis=0)
    assert np.abs(moved).max() < 0.6


def falling(x: Floats) -> Floats:
    """Bent where `bent` first is."""
    return np.asarray(np.interp(x, [0, 3, 4.5, 10], [2, 2, 1, 1]), dtype=np.float64)


def test_a_curve_beside_tells_where_it_may_bend():
    s, error = np.full(len(X), 10.0), np.zeros((2, len(X)))
    for seed in range(8):
        y = bent(X) + s * np.random.default_rng(seed).standard_normal(len(X))
        points = Points(y, s), Points(falling(X), np.full(len(X), 0.01))
        for number, curves in enumerate((points[:1], points)):
            paths = smooth(X, curves, np.random.default_rng(seed))[0].at_points
            error[number] += ((paths - bent(X)) ** 2).mean(axis=0)
    first, rest = (X > 2) & (X < 5.5), X > 6
    assert error[1, first].mean() < 0.9 * error[0, first].mean()  # where both bend
    assert error[1, rest].mean() < 1.1 * error[0, rest].mean()  # where it bends alone


def test_a_curve_beside_that_bends_elsewhere_does_no_harm():
    s, error, zigzag = np.full(len(X), 2.0), np.zeros(2), np.abs(X % 2 - 1)
    for seed in range(6):
        y = bent(X) + s * np.random.default_rng(seed).standard_normal(len(X))
        points = Points(y, s), Points(zigzag, np.full(len(X), 0.001))
        for number, curves in enumerate((points[:1], points)):
            paths = smooth(X, curves, np.random.default_rng(seed))[0].at_points
            error[number] += ((paths.mean(axis=0) - bent(X)) ** 2).mean()
    assert error[1] < 1.3 * error[0]


def test_a_curve_beside_that_is_known_here_and_there():
    y, s = wave(X), np.full(len(X), 0.1)
    y[::3], s[::3] = np.nan, np.inf
    _, paths = smooth(X, [Points(bent(X), np.full(len(X), 0.5)), Points(y, s)], np.random.default_rng(0))
    assert np.abs(paths.at_points.mean(axis=0) - wave(X))[1:-1].max() < 0.5
    part = paths.between(X[1], X[5])
    assert part.at_points == pytest.approx(paths.at_points[:, 1:6])


def test_a_jump_between_two_points_stays_between_them():
    """A chain that takes the points beside it as wrong stays with that."""
    x, missed = np.log(np.arange(1.0, 19)), 0
    for jump in (5, 8, 11):
        value = np.where(np.arange(18) < jump, 1.9, 0.0)
        s = np.where(value > 0, 0.09, 0.02)
        for seed in range(6):
            mean = alone(x, value, s, seed).at_points.mean(axis=0)
            missed += bool(np.abs(mean - value).max() > 0.5)
    assert missed <= 1


def test_units_do_not_matter():
    s, y = np.full(len(X), 0.5), bent(X) + 0.5 * np.random.default_rng(0).standard_normal(len(X))
    paths = smoothed(y, s)
    scaled = alone(1e3 * X + 7, np.asarray(1e-6 * y - 3e-5, dtype=np.float64), 1e-6 * s)
    assert scaled.value == pytest.approx(1e-6 * paths.value - 3e-5, rel=1e-4)
    assert scaled.slope == pytest.approx(1e-9 * paths.slope, rel=1e-3, abs=1e-12)


def test_paths_go_through_all_points_and_three_between_each_two():
    paths = smoothed(bent(X), np.full(len(X), 1.0))
    assert paths.value.shape == (NUM_DRAWS, 4 * (len(X) - 1) + 1)
    assert paths.at_points.shape == (NUM_DRAWS, len(X))
    assert paths.x[:: paths.stride] == pytest.approx(X)
    assert paths.at(np.full((NUM_DRAWS, 2), X[3])) == pytest.approx(paths.at_points[:, [3, 3]])


@pytest.mark.parametrize("x", [np.array([0.0, 1e-9, 2e-9, 1.0, 30.0]), np.log1p(np.array([0, 1e12, 1e12 + 1, 2**61]))])
def test_the_strangest_schedules_are_survived(x: Floats):
    paths = alone(x, np.arange(len(x), dtype=np.float64), np.full(len(x), 1e-3))
    assert np.isfinite(paths.value).all()


@pytest.mark.parametrize("memory", [0.5, 0.9])
def test_shared_noise_is_known_from_the_chains(memory: float):
    found = [shared_noise(50 + 3 * autoregressive((150, 4), memory, seed)) for seed in range(8)]
    assert np.mean([one.share * one.memory for one in found]) == pytest.approx(memory, abs=0.12)
    assert np.mean([one.memory for one in found]) == pytest.approx(memory, abs=0.15)


def test_noise_of_each_its_own_is_none_shared():
    found = [shared_noise(50 + 3 * np.random.default_rng(seed).standard_normal((80, 4))).share for seed in range(40)]
    assert sum(share > 0 for share in found) <= 4
    few = np.random.default_rng(0).standard_normal((9, 4))
    assert shared_noise(few) == shared_noise(few[:, :1]) == shared_noise(np.full((50, 4), np.nan)) == SharedNoise()


def test_shared_noise_widens_the_paths():
    """The mean of neighbours that err together knows less."""
    held = {True: [], False: []}
    for seed in range(6):
        errors = autoregressive((len(X), 4), 0.8, seed)
        y, s = np.asarray(wave(X) + errors.mean(axis=1), dtype=np.float64), np.full(len(X), 0.5)
        for knows in held:
            paths = smoothed(y, s, seed, SharedNoise(0.95, 0.84) if knows else None)
            low, high = np.quantile(paths.at_points, [0.05, 0.95], axis=0)
            held[knows].append((low <= wave(X)) & (wave(X) <= high))
    assert np.mean(held[True]) > 0.78
    assert np.mean(held[True]) > np.mean(held[False]) + 0.1
