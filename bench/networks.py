"""Points where the local learning coefficient of a network is asked for: minima, and other writings of one function."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from bench.objectives import whole
from llc.objective import Objective

Array = NDArray[np.floating[Any]]


def layers_of(w: Array, widths: Sequence[int]) -> list[Array]:
    """The matrices (out, in) of a deep linear network, from its flat vector."""
    shapes = [(out, into) for into, out in pairwise(widths)]
    ends = np.cumsum([out * into for out, into in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(w, ends), shapes, strict=True)]


def flat(layers: Sequence[Array]) -> Array:
    return np.concatenate([layer.ravel() for layer in layers])


def moved(w: Array, widths: Sequence[int], seed: int) -> Array:
    """The same linear map with every hidden layer in another basis: `W_{i+1} G⁻¹`, `G W_i`, where G is random with
    singular values between ½ and 2.
    """
    generator = np.random.default_rng(seed)
    layers = [layer.astype(np.float64) for layer in layers_of(w, widths)]
    for i, width in enumerate(widths[1:-1]):
        left, right = (np.linalg.qr(generator.standard_normal((width, width)))[0] for _ in range(2))
        sizes = np.exp2(generator.uniform(-1, 1, width))
        layers[i] = left @ (sizes[:, None] * (right @ layers[i]))
        layers[i + 1] = layers[i + 1] @ right.T @ (left / sizes).T
    return flat(layers)


def least_squares(x: Array, y: Array, rank: int) -> Array:
    """A two-layer linear network of `rank` hidden units where ½‖y − W₂ W₁ x‖² is least: reduced-rank regression
    (Izenman 1975), `Y` regressed on X, projected to its largest singular vectors, and shared evenly by the two layers.
    """
    covariance = x.T.astype(np.float64) @ x / len(x)
    factor = np.linalg.cholesky(covariance)
    best = np.linalg.lstsq(x.astype(np.float64), y.astype(np.float64), rcond=None)[0].T
    u, sizes, v = np.linalg.svd(best @ factor, full_matrices=False)
    root = np.sqrt(sizes[:rank])
    first = np.linalg.solve(factor.T, (root[:, None] * v[:rank]).T).T
    return flat([first, u[:, :rank] * root])


def trained(objective: Objective, start: Array) -> Array:
    """The minimum of the mean loss that BFGS finds from `start`, to five decimals, so that another machine's rounding
    makes no other problem.
    """
    loss = whole(objective).loss

    def loss_and_gradient(w: Array) -> tuple[float, Array]:
        leaf = torch.tensor(w, dtype=torch.float64, requires_grad=True)
        value = loss(leaf)
        value.backward()
        assert leaf.grad is not None
        return value.item(), leaf.grad.numpy()

    found = minimize(loss_and_gradient, start.astype(np.float64), jac=True, method="BFGS", options={"gtol": 1e-7})
    return np.round(found.x, 5)


def rescaled(w: Array, widths: Sequence[int], factor: float) -> Array:
    """A two-layer ReLU network with its hidden layer multiplied by `factor` and its output layer divided by it: the
    same function. w: flat in the order of `llc.models.MLP`.
    """
    inputs, hidden, outputs = widths
    first, last = hidden * (inputs + 1), outputs * hidden
    scale = np.ones(len(w))
    scale[:first] = factor
    scale[first : first + last] = 1 / factor
    return scale * w
