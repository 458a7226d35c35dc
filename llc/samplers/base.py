"""What every kernel is: one step of many rows, in coordinates u in which the tether is (γ/2)‖u‖².

The step size ε is the square of the time step in every kernel, so that all are stable while ε (nβ h + γ) < 4.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
"""What the next step needs beside u, by name: (chains, rows or 1, ...) each. A kernel puts new tensors in it."""


@dataclass(frozen=True)
class Columns:
    """The settings that differ from row to row: (rows, 1) each."""

    epsilon: Tensor
    nbeta: Tensor
    gamma: Tensor
    num_free: Tensor
    """Parameters that are not held."""


@dataclass(frozen=True)
class Point:
    """Where the rows are, and what was found there."""

    u: Tensor
    """(chains, rows, d)."""
    losses: Tensor
    """(chains, rows): the minibatch's mean loss."""
    gradients: Tensor
    """(chains, rows, d): of nβ times that loss, with respect to u."""
    forces: Tensor
    """(chains, rows, d): gradients + γ u, the gradient of the energy."""
    curvatures: Tensor | None = None
    """(chains, rows, d): an unbiased estimate of the diagonal of the loss' Hessian (without nβ), if asked for."""


class Kernel(ABC):
    """One Markov kernel. settings: of its class in `llc.settings`."""

    full_data = False
    """Whether the loss has to be that of the whole data set."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @property
    def needs_curvatures(self) -> bool:
        """Whether `step` reads `Point.curvatures`."""
        return False

    def start(self, u: Tensor, noise: Tensor, columns: Columns) -> State:
        """The state before the first step. u: zeros (chains, rows, d); noise: standard normals (chains, rows or 1, d),
        0 where a parameter is held.
        """
        return {}

    def settle(self, point: Point, state: State, uniforms: Tensor, columns: Columns) -> Point:
        """The point that counts as a draw, another one than was evaluated if that is refused.

        uniforms: (chains, 1) in [0, 1).
        """
        return point

    @abstractmethod
    def step(self, point: Point, state: State, noise: Tensor, columns: Columns) -> Tensor:
        """The next u to evaluate. noise: as in `start`, of this step."""

    def stretching(self, state: State, columns: Columns) -> Tensor | None:
        """How much a force of unit slope stretches the variance of a coordinate for the step's sake, to first order in
        ε; shaped to multiply (chains, rows, d). None: not at all.
        """
        return None

    def heating(self, state: State, columns: Columns) -> Tensor | None:
        """How much gradient noise of unit variance raises the temperature of a coordinate, which should be 1; as
        `stretching`.
        """
        return None
