"""Losses that are quadratic in w, under the tether: everything is Gaussian, and known in closed form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llc.models import DeepLinear
from llc.objective import ModelObjective

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regression:
    """½ (y − w·x)² on n samples; x (n, d), y (n,)."""

    x: Array
    y: Array

    @property
    def objective(self) -> ModelObjective:
        """Parameters: `layers.0.weight` (1, d)."""
        arrays = {"x": self.x.astype(np.float32), "y": self.y[:, None].astype(np.float32)}
        return ModelObjective(DeepLinear(widths=(self.x.shape[1], 1)), arrays)

    @property
    def best(self) -> Array:
        """The minimum of the loss."""
        return np.asarray(np.linalg.lstsq(self.x, self.y, rcond=None)[0], np.float64)

    def loss(self, w: Array) -> float:
        return float(((self.y - self.x @ w) ** 2).mean() / 2)

    def posterior(self, w: Array, nbeta: float, gamma: float, free: slice = slice(None)) -> tuple[Array, Array]:
        """Mean and covariance of the free parameters' distance from w."""
        x, errors = self.x[:, free], self.y - self.x @ w
        precision = nbeta * x.T @ x / len(x) + gamma * np.eye(x.shape[1])
        covariance = np.asarray(np.linalg.inv(precision), np.float64)
        return covariance @ (nbeta * x.T @ errors / len(x)), covariance

    def llc(self, w: Array, nbeta: float, gamma: float, free: slice = slice(None)) -> float:
        """λ̂ of a perfect sampler: nβ E[L(w + u) − L(w)]."""
        x, errors = self.x[:, free], self.y - self.x @ w
        mean, covariance = self.posterior(w, nbeta, gamma, free)
        shifted = errors - x @ mean
        return nbeta / 2 * float((shifted**2).mean() - (errors**2).mean() + np.trace(covariance @ x.T @ x) / len(x))

    def singular_fluctuation(self, w: Array, nbeta: float, gamma: float) -> float:
        """(nβ/2) · mean of the variances of ½ (e − s)², s ~ N(0, v): e² v + v²/2."""
        mean, covariance = self.posterior(w, nbeta, gamma)
        errors = self.y - self.x @ (w + mean)
        v = np.einsum("ni,ij,nj->n", self.x, covariance, self.x)
        return nbeta / 2 * float((errors**2 * v + v**2 / 2).mean())


def regression(n: int, d: int, noise: float, seed: int, scale: float = 1.0) -> Regression:
    """Correlated inputs, a random teacher, and Gaussian noise on its output."""
    rng = np.random.default_rng(seed)
    x = scale * rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
    return Regression(x, x @ rng.standard_normal(d) + noise * rng.standard_normal(n))
