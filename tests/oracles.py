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

from llc.exact import POTENTIALS, deep_linear, quadratic_llc, quadratic_sgld_llc


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
