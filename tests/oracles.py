"""Problems with known answers, for tests of samplers: a loss in operators alone (numpy arrays and torch tensors both
serve, no torch is imported), a point w* = 0 or given, and the truth at a finite (nβ, γ) from `llc.exact`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root

from llc.exact import POTENTIALS, deep_linear, quadratic_llc, quadratic_sgld_llc, tms_kgon_lambda


class Oracle(Protocol):
    """A loss with its minimum, 0, at w* = 0. `llc.exact.Potential` is one, `Quadratic` another.

    loss: w (..., dimension) → (...); llc: (nβ, γ) → λ̂ of a perfect sampler.
    """

    @property
    def name(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def loss(self) -> Callable[[Any], Any]: ...
    def llc(self, nbeta: float, gamma: float) -> float: ...


@dataclass(frozen=True)
class Quadratic:
    """½ Σ h_i w_i², of which even SGLD's own stationary law is known."""

    name: str
    h: tuple[float, ...]

    @property
    def dimension(self) -> int:
        return len(self.h)

    def loss(self, w: Any) -> Any:
        return sum(h * w[..., i] ** 2 for i, h in enumerate(self.h)) / 2

    def llc(self, nbeta: float, gamma: float) -> float:
        return quadratic_llc(self.h, nbeta, gamma)

    def sgld_llc(self, nbeta: float, gamma: float, epsilon: float) -> float:
        """λ̂ of full-batch SGLD with step ε, run for ever."""
        return quadratic_sgld_llc(self.h, nbeta, gamma, epsilon)


QUADRATICS = (
    Quadratic("bowl", (1.0,) * 10),
    Quadratic("valley", (0.5, 1.0, 2.0, 4.0)),
    Quadratic("half flat", (1.0, 1.0, 0.0, 0.0)),  # only the tether holds the flat directions
)

ORACLES: Mapping[str, Oracle] = {**{quadratic.name: quadratic for quadratic in QUADRATICS}, **POTENTIALS}


@dataclass(frozen=True)
class LinearNetworkProblem:
    """Data of a linear teacher, a deep linear network at the teacher, and the exact λ there.

    x: (n, inputs) float32; y: (n, outputs) float32; w_star: (d,) float32, flat in the order of
    `llc.models.DeepLinear`: `layers.{i}.weight` (out, in); lambda_, multiplicity: of the loss ½‖y − f‖² (gaussian_nll).
    """

    widths: tuple[int, ...]
    rank: int
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    w_star: NDArray[np.float32]
    lambda_: Fraction
    multiplicity: int


def linear_network(widths: tuple[int, ...], rank: int, n: int, seed: int, noise: float = 0.0) -> LinearNetworkProblem:
    """A deep linear network at its most degenerate optimum, block form diag(I_r, 0) in every layer.

    x ~ N(0, 1); y is the teacher's output, plus `noise` × N(0, 1). Without noise w* is a minimum of the empirical loss,
    where the loss is 0.
    """
    lambda_, multiplicity = deep_linear(widths, rank)
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, widths[0]))
    y = np.zeros((n, widths[-1]))
    y[:, :rank] = x[:, :rank]
    y += noise * generator.standard_normal(y.shape)
    layers = [np.zeros((out, into)) for into, out in pairwise(widths)]
    for layer in layers:
        layer[range(rank), range(rank)] = 1
    w_star = np.concatenate([layer.ravel() for layer in layers])
    return LinearNetworkProblem(
        tuple(widths),
        rank,
        x.astype(np.float32),
        y.astype(np.float32),
        w_star.astype(np.float32),
        lambda_,
        multiplicity,
    )


def layers_of(problem: LinearNetworkProblem) -> list[NDArray[np.float32]]:
    """w* as its matrices, (out, in) each."""
    shapes = [(out, into) for into, out in pairwise(problem.widths)]
    ends = np.cumsum([out * into for out, into in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(problem.w_star, ends), shapes, strict=True)]


@dataclass(frozen=True)
class SuperpositionProblem:
    """The toy model of superposition with c features in two dimensions, at a k-gon, and the exact λ there.

    x: (n, c) float32; w_star: (3c,) float32, flat in the order of `llc.models.ToyModelOfSuperposition`: W (2, c) and
    b (c,).
    """

    k: int
    c: int
    x: NDArray[np.float32]
    w_star: NDArray[np.float32]
    lambda_: Fraction


def superposition(k: int, c: int, samples_per_feature: int, unused_bias: float = -0.5) -> SuperpositionProblem:
    """The k-gon, k = 5 … 8, of c ≥ k features [Chen et al. 2023, arXiv 2310.06301]: k columns of W at the corners, of
    length l and with bias b, all other columns 0 with a bias below 0.

    A sample has one active feature, uniform in [0, 1]: here the midpoints of equal cells, the same for every feature.
    The data are then their own population, and w* is a minimum of the empirical loss: (l, b) is solved for these data.
    """
    values = (np.arange(samples_per_feature) + 0.5) / samples_per_feature
    length, bias = _kgon(k, values)
    angles = 2 * np.pi * np.arange(k) / k
    W, b = np.zeros((2, c)), np.full(c, unused_bias)
    W[:, :k] = length * np.array([np.cos(angles), np.sin(angles)])
    b[:k] = bias
    x = np.concatenate([values[:, None] * feature for feature in np.eye(c)])
    w_star = np.concatenate([W.ravel(), b])
    return SuperpositionProblem(k, c, x.astype(np.float32), w_star.astype(np.float32), tms_kgon_lambda(k, c))


def _kgon(k: int, values: NDArray[np.float64]) -> tuple[float, float]:
    """(l, b) where the loss of an active feature of these values has no slope."""
    cosines = np.cos(2 * np.pi * np.arange(k) / k)[:, None]
    target = np.eye(k)[:, :1] * values

    def slope(at: NDArray[np.float64]) -> list[float]:
        length, bias = at
        output = np.maximum(length**2 * cosines * values + bias, 0)
        error = np.where(output > 0, output - target, 0)
        return [2 * length * float((error * cosines * values).sum(0).mean()), float(error.sum(0).mean())]

    found = root(slope, (1.2 + 0.12 * (k - 5), -0.3 * (k - 4)), tol=1e-12)
    assert found.success, found.message
    return float(found.x[0]), float(found.x[1])


@dataclass(frozen=True)
class RescaledProblem:
    """One function, written with many parameters: the exact λ is the same for every row of w_star.

    x: (n, inputs) float32; y: (n, outputs) float32; w_star: (factors, d) float32, rows flat in the order of
    `llc.models.MLP`: `layers.{i}.weight` (out, in), `layers.{i}.bias` (out,).
    """

    widths: tuple[int, ...]
    factors: tuple[float, ...]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    w_star: NDArray[np.float32]


def rescaled_relu(
    widths: tuple[int, ...], factors: tuple[float, ...], n: int, seed: int, layer: int = 0, noise: float = 0.0
) -> RescaledProblem:
    """A random ReLU network and copies of it in which a hidden layer's weights and bias are multiplied by a factor
    c > 0 and the next layer's weights by 1/c, which leaves the function as it is [Lau et al., arXiv 2308.12108].

    x ~ N(0, 1); y is the network's output, plus `noise` × N(0, 1).
    """
    generator = np.random.default_rng(seed)
    weights = [generator.normal(scale=(2 / into) ** 0.5, size=(out, into)) for into, out in pairwise(widths)]
    biases = [generator.normal(scale=0.1, size=out) for out in widths[1:]]
    x = generator.standard_normal((n, widths[0]))
    y = x
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        y = (np.maximum(y, 0) if i else y) @ weight.T + bias
    y = y + noise * generator.standard_normal(y.shape)

    def copy(factor: float) -> NDArray[np.float64]:
        parts = [part for pair in zip(weights, biases, strict=True) for part in pair]
        for part, scale in ((2 * layer, factor), (2 * layer + 1, factor), (2 * layer + 2, 1 / factor)):
            parts[part] = scale * parts[part]
        return np.concatenate([part.ravel() for part in parts])

    w_star = np.stack([copy(factor) for factor in factors])
    return RescaledProblem(
        tuple(widths), tuple(factors), x.astype(np.float32), y.astype(np.float32), w_star.astype(np.float32)
    )
