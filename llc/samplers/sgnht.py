"""Stochastic gradient Nosé-Hoover thermostat (Ding et al. 2014, NeurIPS 27): underdamped Langevin dynamics with noise
for a friction A, whose actual friction ξ adapts until the momentum's temperature is 1, and so takes up what isotropic
gradient noise adds. In the symmetric splitting of Leimkuhler & Shang (arXiv 1505.06889), time step h = √ε,
F = nβ ∇L_m + γ u:

`p ← p − h F`,  `u ← u + (h/2) p`,  `ξ ← ξ + (h²/2) (p·p/d − 1)`,  `p ← c p + √((1 − c²) A/ξ) R`,  c = e^{−ξ},
`ξ ← ξ + (h²/2) (p·p/d − 1)`,  `u ← u + (h/2) p`.

(ξ and A are the paper's times h.) Without gradient noise ξ stays about A, and the kernel is BAOAB. Euler steps, as in
the paper, leave the positions too cold by the factor 1 − A/2.
"""

from torch import Tensor

from llc.samplers.base import Columns, Kernel, Point, State
from llc.settings import SGNHTSettings


class SGNHT(Kernel):
    """State: `momentum` p (chains, rows, d), `friction` ξ (chains, rows, 1)."""

    settings: SGNHTSettings

    def start(self, u: Tensor, noise: Tensor, columns: Columns) -> State:
        friction = u.new_full((*u.shape[:2], 1), self.settings.friction)
        return {"momentum": noise.expand_as(u), "friction": friction}

    def step(self, point: Point, state: State, noise: Tensor, columns: Columns) -> Tensor:
        h = columns.epsilon.sqrt()
        kicked = state["momentum"] - h * point.forces
        friction = state["friction"] + _pull(kicked, columns)
        # (1 − e^{−2ξ})/ξ is positive for every ξ, and 2 at ξ = 0.
        variance = self.settings.friction * -(-2 * friction).expm1() / friction.where(friction != 0, _TINY)
        momentum = (-friction).exp() * kicked + variance.sqrt() * noise
        state["momentum"], state["friction"] = momentum, friction + _pull(momentum, columns)
        return point.u + h / 2 * (kicked + momentum)


_TINY = 1e-12


def _pull(p: Tensor, columns: Columns) -> Tensor:
    """(h²/2) (p·p/d − 1), (chains, rows, 1)."""
    return columns.epsilon / 2 * (p.square().sum(-1, keepdim=True) / columns.num_free - 1)
