"""Stochastic gradient Langevin dynamics (Welling & Teh 2011), in the convention of Lau et al. (arXiv 2308.12108):

`u ← u − (ε/2) F + √ε R_t`,  F = nβ ∇L_m + γ u,

or with averaged noise (Leimkuhler & Matthews, arXiv 1203.5428), which has no step-size bias on quadratics, and one
order less elsewhere, at the same cost: `u ← u − (ε/2) F + √ε (R_t + R_{t+1})/2`.

On a direction of curvature h, a = nβ h + γ, with gradient noise of variance C, plain SGLD's stationary variance is
`(1 + ε C/4) / (a (1 − ε a/4))` where it should be 1/a, and that with averaged noise `(1 + (ε C/4) / (1 − ε a/4)) / a`.
"""

import torch
from torch import Tensor

from llc.samplers.base import Columns, Kernel, Point, State
from llc.settings import SGLDSettings


class SGLD(Kernel):
    """State, with averaged noise: `noise` R_t (chains, rows or 1, d)."""

    settings: SGLDSettings

    def start(self, u: Tensor, noise: Tensor, columns: Columns) -> State:
        return {"noise": noise} if self.settings.noise == "averaged" else {}

    def step(self, point: Point, state: State, noise: Tensor, columns: Columns) -> Tensor:
        size = columns.epsilon.sqrt()
        moved = torch.addcmul(point.u, columns.epsilon, point.forces, value=-0.5)
        if state:
            size = size / 2
            moved.addcmul_(size, state["noise"])
            state["noise"] = noise
        return moved.addcmul_(size, noise)

    def stretching(self, state: State, columns: Columns) -> Tensor | None:
        return None if state else columns.epsilon / 4

    def heating(self, state: State, columns: Columns) -> Tensor:
        return columns.epsilon / 4
