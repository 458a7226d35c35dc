"""Other ways to find transitions, on the same curves: run in its own environment, `python segment.py curves.npz`.

Curves are arrays x<i>, llc<i>, llc_std_error<i>; answers are JSON on standard output: for each method, for each curve,
the [start, stop] of its transitions in x. What a method calls a change is a transition if it is beyond 2 % of the
curve's range; pieces that go on in one direction are one.

zero crossings: critical points of a Gaussian process's mean (RBF and white noise, by marginal likelihood), the
published rule [arXiv 2402.02364]; a stage lies between two of them.
PELT, binary segmentation: `ruptures`, continuous straight pieces (`clinear`) over the checkpoints, with the errors' own
variance and a penalty of so many times log n of it; a piece that changes by less than three standard errors is flat.
"""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

# Not in our own environment, which looks for them.
ruptures: Any = import_module("ruptures")
processes: Any = import_module("sklearn.gaussian_process")
kernels: Any = import_module("sklearn.gaussian_process.kernels")

LEAST = 0.02
PENALTIES = (3.0, 10.0, 30.0)
GRID = 1000

Pieces = list[tuple[float, float]]


def zero_crossings(x: np.ndarray, y: np.ndarray, s: np.ndarray) -> Pieces:
    """Stretches between critical points."""
    scale = y.std() or 1.0
    kernel = kernels.ConstantKernel(1.0, (1e-2, 1e2)) * kernels.RBF(1.0, (0.05, 10.0))
    kernel += kernels.WhiteKernel(1e-3, (1e-8, 1.0))
    process = processes.GaussianProcessRegressor(kernel, alpha=(s / scale) ** 2, normalize_y=False)
    process.fit(x[:, None], (y - y.mean()) / scale)
    grid = np.linspace(x[0], x[-1], GRID)
    mean = process.predict(grid[:, None]) * scale
    turns = 1 + np.flatnonzero(np.diff(np.sign(np.diff(mean))) != 0)
    ends = np.concatenate([[0], turns, [GRID - 1]])
    changes = np.diff(mean[ends])
    beyond = np.abs(changes) > LEAST * np.ptp(mean)
    return [(grid[a], grid[b]) for a, b, ok in zip(ends[:-1], ends[1:], beyond, strict=True) if ok]


def straight_pieces(search: type, penalty: float) -> Callable[..., Pieces]:
    """By continuous straight pieces."""

    def found(x: np.ndarray, y: np.ndarray, s: np.ndarray) -> Pieces:
        noise = float(np.median(s)) * 1.13
        algorithm = search(custom_cost=ruptures.costs.CostCLinear(), min_size=3, jump=1).fit(y / noise)
        ends = np.array([0, *algorithm.predict(pen=penalty * np.log(len(y)))])
        ends[-1] = len(y) - 1
        changes = np.diff(y[ends])
        least = max(LEAST * float(np.ptp(y)), 3 * noise)
        moves: Pieces = []
        last = 0.0
        for a, b, change in zip(ends[:-1], ends[1:], changes, strict=True):
            way = float(np.sign(change)) if abs(change) > least else 0.0
            if way and way == last:
                moves[-1] = (moves[-1][0], float(x[b]))
            elif way:
                moves.append((float(x[a]), float(x[b])))
            last = way
        return moves

    return found


METHODS: dict[str, Callable[..., Pieces]] = {"zero crossings": zero_crossings}
for factor in PENALTIES:
    METHODS[f"PELT, penalty {factor:g}"] = straight_pieces(ruptures.Pelt, factor)
    METHODS[f"binary segmentation, penalty {factor:g}"] = straight_pieces(ruptures.Binseg, factor)


def curves(path: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of a file."""
    arrays = np.load(path)
    for i in range(sum(name.startswith("x") for name in arrays)):
        x, y, s = arrays[f"x{i}"], arrays[f"llc{i}"], arrays[f"llc_std_error{i}"]
        known = np.isfinite(y) & np.isfinite(s)
        yield x[known], y[known], s[known]


def main() -> None:
    """Answer for one file."""
    warnings.simplefilter("ignore")  # a length scale at its bound
    every = list(curves(sys.argv[1]))
    answer = {name: [method(*curve) for curve in every] for name, method in METHODS.items()}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
