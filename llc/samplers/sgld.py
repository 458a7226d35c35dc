"""Stochastic gradient Langevin dynamics (Welling & Teh 2011), in the convention of Lau et al. (arXiv 2308.12108):

`w ← w − (ε/2) [nβ ∇L_m(w) + γ (w − w*)] + N(0, ε)`
"""

from torch import Tensor

from llc.settings import SGLDSettings


def step(
    settings: SGLDSettings, w: Tensor, anchor: Tensor, gradient: Tensor, noise: Tensor, nbeta: float, gamma: float
) -> Tensor:
    """One step of every row. w, anchor, gradient: (..., d); noise: standard normal, broadcast against w."""
    drift = nbeta * gradient + gamma * (w - anchor)
    return w - settings.epsilon / 2 * drift + settings.epsilon**0.5 * noise
