"""Underdamped Langevin dynamics, unit mass, in the splitting BAOAB (Leimkuhler & Matthews, arXiv 1203.5428), time step
h = √ε; the law of the positions is exact on quadratics. Between two evaluations of F = nβ ∇L_m + γ u, with the two half
kicks at one point in one:

`p ← p − h F`,  `u ← u + (h/2) p`,  `p ← c p + √(1 − c²) R`,  `u ← u + (h/2) p`.

c is the share of the momentum that a step keeps.
"""

from torch import Tensor

from llc.samplers.base import Columns, Kernel, Point, State
from llc.settings import BAOABSettings


class BAOAB(Kernel):
    """State: `momentum` p (chains, rows, d)."""

    settings: BAOABSettings

    def start(self, u: Tensor, noise: Tensor, columns: Columns) -> State:
        return {"momentum": noise.expand_as(u)}

    def step(self, point: Point, state: State, noise: Tensor, columns: Columns) -> Tensor:
        h, c = columns.epsilon.sqrt(), self.settings.momentum
        kicked = state["momentum"] - h * point.forces
        state["momentum"] = c * kicked + (1 - c**2) ** 0.5 * noise
        return point.u + h / 2 * (kicked + state["momentum"])

    def heating(self, state: State, columns: Columns) -> Tensor:
        """A kick lasts for 1/(1 − c) steps: (ε/4) (1 + c)/(1 − c)."""
        c = self.settings.momentum
        return columns.epsilon / 4 * (1 + c) / (1 - c)
