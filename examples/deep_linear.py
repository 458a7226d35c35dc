"""A deep linear network that learns a matrix of rank three one singular value at a time.

Four weight matrices, 8-3-3-3-8, small at the start. Near zero the gradient of a singular value is of third order in the
weights, so nothing seems to happen for a long time; then the largest is learned at once, then, much later, the next.
Each is a transition of type A, and the exact learning coefficient of every rank is known (`llc.exact.deep_linear`).

A plateau is a saddle of the loss, not a minimum, but for the last. A strong tether holds the chains there: the way out
is of fourth order. On the plateaus alone, λ̂ is estimated a second time with a weak tether, and with targets of the rank
that the network has there, for which the same weights *are* a minimum.

    python examples/deep_linear.py --serve       # with a stack of its own, for as long as it takes
    python examples/deep_linear.py               # against LAMBDAHAT_URL, with LAMBDAHAT_KEY
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from common import Anchor, Run, curvatures, example, measure, measure_plateaus, recorder
from numpy.typing import NDArray

import lambdahat
from llc.exact import deep_linear

Floats = NDArray[np.float64]

WIDTHS = (8, 3, 3, 3, 8)
SINGULAR_VALUES = (3.0, 1.5, 1.0)
RANKS = range(len(SINGULAR_VALUES) + 1)
GAIN = 0.012  # the scale of all weight matrices at the start: the smaller, the longer and flatter the plateaus
LEARNING_RATE = 0.085
STEPS = 600_000
SCHEDULE = [step for step in lambdahat.log_linear_steps(STEPS, num_log=110) if step == 0 or step > 4000]
"""Nothing happens before."""

MODEL = {"family": "deep_linear", "widths": list(WIDTHS)}
NBETA = 4e4  # there is no noise, so any nβ is that of enough samples
MEASURES: dict[str, dict[str, Any]] = {
    "loss": {},
    "llc": {
        "sampler": {"name": "baoab", "epsilon": 2e-6, "momentum": 0.7},
        "nbeta": NBETA,
        # γ² / nβ s ≫ 1 holds the chains at a saddle from which the singular value s leads away; γ ≪ nβ s^(3/2) leaves
        # free what is learned of it.
        "gamma": 3000.0,
        "batch_size": 2 ** WIDTHS[0],
        "num_burnin_steps": 200,
        "num_draws": 2400,
    },
}
PLATEAU_LLC: dict[str, Any] = MEASURES["llc"] | {
    "sampler": {"name": "baoab", "epsilon": 2e-6, "momentum": 0.97},
    "gamma": 100.0,
    "num_burnin_steps": 1000,
    "num_draws": 5000,
}


@dataclass(frozen=True)
class Task:
    """Inputs x (n, 8) and a matrix U diag(s) Vᵀ to learn from them, without noise.

    The inputs are the corners of a cube, white exactly. Its axes are V's, so all samples have the same loss wherever
    some singular values are learned and the others are not.
    """

    x: Floats
    left: Floats
    right: Floats

    @staticmethod
    def draw(random: np.random.Generator) -> "Task":
        """A task."""

        def orthonormal(size: int) -> Floats:
            return np.linalg.qr(random.normal(size=(size, size)))[0]

        left, right, rank = orthonormal(WIDTHS[-1]), orthonormal(WIDTHS[0]), len(SINGULAR_VALUES)
        corners = np.array(list(product((-1.0, 1.0), repeat=WIDTHS[0])))
        return Task(corners @ right.T, left[:, :rank], right[:, :rank])

    def matrix(self, rank: int = len(SINGULAR_VALUES)) -> Floats:
        """The matrix, or the best of a lower rank."""
        return self.left[:, :rank] * np.array(SINGULAR_VALUES)[:rank] @ self.right[:, :rank].T


def initial_weights(random: np.random.Generator) -> list[Floats]:
    """Orthogonal matrices, as wide as they are, times the gain."""
    weights: list[Floats] = []
    for into, out in pairwise(WIDTHS):
        tall = np.linalg.qr(random.normal(size=(max(into, out), min(into, out))))[0]
        weights.append(GAIN * (tall if out >= into else tall.T))
    return weights


def end_to_end(weights: Sequence[Floats]) -> Floats:
    """W_L … W_1."""
    found = weights[0]
    for weight in weights[1:]:
        found = weight @ found
    return found


def descend(weights: list[Floats], target: Floats) -> None:
    """One step of gradient descent on ½‖W_L … W_1 − target‖², which is the loss: the inputs are white."""
    first, second, third, fourth = weights
    below, above = second @ first, fourth @ third
    error = above @ below - target
    back = above.T @ error
    gradients = (second.T @ back, back @ first.T, fourth.T @ error @ below.T, error @ (third @ below).T)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight -= LEARNING_RATE * gradient


def parameters(weights: Sequence[Floats]) -> dict[str, NDArray[np.float32]]:
    """Under the model's names."""
    return {f"layers.{i}.weight": weight.astype(np.float32) for i, weight in enumerate(weights)}


def train(
    recording: lambdahat.Recorder, task: Task, random: np.random.Generator
) -> list[tuple[int, int, list[Floats]]]:
    """Full-batch gradient descent. Returns (step, rank, weights) of what was recorded; a singular value counts once it
    is half learned.
    """
    weights, target = initial_weights(random), task.matrix()
    recorded: list[tuple[int, int, list[Floats]]] = []
    for step in range(STEPS + 1):
        if recording.wants(step):
            learned = np.einsum("ij,ik,kj->j", task.left, end_to_end(weights), task.right)
            rank = int((learned > 0.5 * np.array(SINGULAR_VALUES)).sum())
            singular = {f"singular_value_{i + 1}": float(value) for i, value in enumerate(learned)}
            recording.record(step, parameters(weights), {"rank": rank, **singular})
            recorded.append((step, rank, [weight.copy() for weight in weights]))
            print(f"\rtraining: step {step:6d}  learned {', '.join(f'{value:.2f}' for value in learned)}", end="")
        descend(weights, target)
    print()
    return recorded


def anchors(task: Task, recorded: Sequence[tuple[int, int, list[Floats]]]) -> list[Anchor]:
    """The middle checkpoint of every rank that was reached, as a minimum for targets of that rank."""
    found: list[Anchor] = []
    for rank in RANKS:
        of_rank = [(step, weights) for step, reached, weights in recorded if reached == rank]
        if of_rank:
            step, weights = of_rank[len(of_rank) // 2]
            target, shapes = torch.from_numpy(task.matrix(rank)), [weight.shape for weight in weights]

            def loss(w: torch.Tensor, target: torch.Tensor = target, shapes: Sequence[Any] = shapes) -> torch.Tensor:
                parts = w.split([rows * columns for rows, columns in shapes])
                matrices = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
                return (torch.linalg.multi_dot(matrices[::-1]) - target).square().sum() / 2

            w = torch.cat([torch.from_numpy(weight).flatten() for weight in weights])
            curved = curvatures(loss, w) if rank else np.zeros(len(w))
            exact = float(deep_linear(WIDTHS, rank)[0])
            found.append(Anchor(step, parameters(weights), f"rank {rank}", exact, curved, f"llc_rank{rank}"))
    return found


def run_example(run: Run) -> None:
    """Train, record, post, measure, draw."""
    random = np.random.default_rng(run.seed)
    task = Task.draw(random)
    data = {rank: run.client.create_dataset(f"rank {rank}", x=task.x, y=task.x @ task.matrix(rank).T) for rank in RANKS}
    model = run.client.create_model("deep linear 8-3-3-3-8", MODEL)
    series = run.client.create_series("deep linear", model, data[RANKS[-1]], tags={"seed": run.seed})
    with recorder(run, series, SCHEDULE) as recording:
        recorded = train(recording, task, random)
    measure(run, series, MEASURES, "deep_linear")
    refined = {f"rank{rank}": {"dataset": data[rank].id} for rank in RANKS}
    measure_plateaus(run, series, anchors(task, recorded), PLATEAU_LLC | {"refined": refined}, "deep_linear")


if __name__ == "__main__":
    with example(__doc__, "demo") as this:
        run_example(this)
