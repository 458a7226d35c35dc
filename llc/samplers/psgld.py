"""SGLD preconditioned by RMSprop (Li et al., arXiv 1512.07666), as the benchmark arXiv 2507.21449 runs it: second
moments of the loss gradient g alone, without nβ, tether or noise,

`v ← ρ v + (1 − ρ) g²`, v₀ = 1,  `v̂ = v / (1 − ρᵗ)`,  `ε_t = ε / (√v̂ + a)`,  `u ← u − (ε_t/2) F + √ε_t R`,

F = nβ ∇L_m + γ u. A preconditioner that moves with u calls for one more drift, `½ ∂ε_t/∂u` with
`∂ε_t/∂u_i = −ε (1 − ρ) g_i H_ii / ((√v̂ + a)² √v̂ (1 − ρᵗ))`, which peers leave out. It is an option here.
"""

from torch import Tensor

from llc.samplers.base import Columns, Kernel, Point, State
from llc.settings import PSGLDSettings


class PSGLD(Kernel):
    """State: `moments` v (chains, rows, d); `unseen` ρᵗ (1, 1, 1); `epsilon` ε_t (chains, rows, d)."""

    settings: PSGLDSettings

    @property
    def needs_curvatures(self) -> bool:
        return self.settings.correction

    def start(self, u: Tensor, noise: Tensor, columns: Columns) -> State:
        ones = u.new_ones(u.shape)
        return {"moments": ones, "unseen": u.new_ones(1, 1, 1), "epsilon": columns.epsilon * ones}

    def step(self, point: Point, state: State, noise: Tensor, columns: Columns) -> Tensor:
        decay, a = self.settings.decay, self.settings.stability
        g = point.gradients / columns.nbeta
        state["moments"] = decay * state["moments"] + (1 - decay) * g.square()
        state["unseen"] = decay * state["unseen"]
        root = (state["moments"] / (1 - state["unseen"])).sqrt()
        epsilon = state["epsilon"] = columns.epsilon / (root + a)
        moved = point.u - epsilon / 2 * point.forces + epsilon.sqrt() * noise
        if point.curvatures is not None:
            slope = (1 - decay) * g * point.curvatures / (root * (1 - state["unseen"]))
            moved -= columns.epsilon / 2 * slope / (root + a).square()
        return moved

    def stretching(self, state: State, columns: Columns) -> Tensor:
        """As plain SGLD's, coordinate by coordinate."""
        return state["epsilon"] / 4

    def heating(self, state: State, columns: Columns) -> Tensor:
        return state["epsilon"] / 4
