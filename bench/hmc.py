"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011, arXiv 1206.1901): the reference kernel, shared with no sampler
of `llc`.

In coordinates u about w*, `w = w* + s∘u`, `U(u) = nβ (L_n(w) − L_n(w*)) + (γ/2)‖u‖²`; momenta p ~ N(0, 1); leapfrog

`p ← p − (h/2) ∇U`, `u ← u + h p`, `p ← p − (h/2) ∇U`,

for a random time about a quarter of the slowest period, 2π/√γ, and accepted with probability `min(1, e^{−ΔH})`: without
step-size bias. The step is random too, so that a chain where the loss is curved most, too much for the usual step, does
not stay there. All chains take the same leaps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

MAX_LEAPS = 400
TARGET_ACCEPTANCE = 0.9
SHORTEST = 0.3
"""Of the random steps, as a share of the longest."""
HOT = 4.0
"""Temperature from which half of the chains start."""


@dataclass(frozen=True)
class Posterior:
    """The tethered, tempered posterior of one point. loss: (d,) → (); anchor: (d,) float64; scales: (d,), s."""

    loss: Callable[[Tensor], Tensor]
    anchor: Tensor
    nbeta: float
    gamma: float
    scales: Tensor

    def potential(self, u: Tensor) -> Tensor:
        """nβ L_n(w), up to a constant: (chains, d) → (chains,)."""
        return self.nbeta * vmap(self.loss)(self.anchor + self.scales * u)

    def evaluate(self, u: Tensor) -> "Place":
        leaf = u.detach().requires_grad_()
        potential = self.potential(leaf)
        (gradient,) = torch.autograd.grad(potential.sum(), leaf)
        tether = self.gamma / 2 * u.square().sum(-1)
        return Place(u, potential.detach(), potential.detach() + tether, gradient + self.gamma * u)

    def sharpness(self, u: Tensor, num_products: int = 30) -> float:
        """The largest eigenvalue of U's Hessian at one u (d,), by power iteration."""
        leaf = u.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.potential(leaf[None]).sum(), leaf, create_graph=True)
        v = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype)
        size = 0.0
        for _ in range(num_products):
            v = v / v.norm()
            (product,) = torch.autograd.grad(gradient, leaf, v, retain_graph=True)
            product = product + self.gamma * v
            size, v = product.norm().item(), product
        return size


@dataclass(frozen=True)
class Place:
    """Where the chains are: u, gradient (chains, d); potential nβ L_n and energy U, (chains,)."""

    u: Tensor
    potential: Tensor
    energy: Tensor
    gradient: Tensor

    def where(self, accept: Tensor, other: "Place") -> "Place":
        """This place for the chains that accept, the other for the rest."""
        return Place(
            torch.where(accept[:, None], self.u, other.u),
            torch.where(accept, self.potential, other.potential),
            torch.where(accept, self.energy, other.energy),
            torch.where(accept[:, None], self.gradient, other.gradient),
        )


class HMC:
    """Chains that can go on. The first half starts at w*, cold; the second half is let loose from there at a higher
    temperature first, so that the two come to the posterior from below and from above.
    """

    def __init__(self, posterior: Posterior, num_chains: int, num_warmup: int, seed: int = 0) -> None:
        self.posterior = posterior
        self.num_gradients = 0
        self.acceptance = 0.0
        """Of the trajectories since the warm-up."""
        self._generator = torch.Generator().manual_seed(seed)
        self._beta = torch.ones(num_chains, dtype=torch.float64)
        self._place = posterior.evaluate(torch.zeros(num_chains, len(posterior.anchor), dtype=torch.float64))
        self.time_step = 0.1 / math.sqrt(posterior.sharpness(self._place.u[0]))
        self._beta[num_chains // 2 :] = 1 / HOT
        self._warm_up(num_warmup)
        self._beta[:] = 1
        self._warm_up(num_warmup)

    def draw(self, num_draws: int) -> Tensor:
        """(chains, draws): nβ L_n, a draw after each trajectory."""
        draws, accepted = [], []
        for _ in range(num_draws):
            accepted.append(self._trajectory())
            draws.append(self._place.potential)
        self.acceptance = sum(accepted) / len(accepted)
        return torch.stack(draws, 1)

    def sharpness(self, num_places: int = 4) -> float:
        """The largest curvature of U at the chains' present places: the largest of some."""
        return max(self.posterior.sharpness(u) for u in self._place.u[-num_places:])

    def _warm_up(self, num_trajectories: int) -> None:
        """Move, and adapt the step to the acceptance (Robbins & Monro)."""
        for i in range(num_trajectories):
            accepted = self._trajectory()
            self.time_step *= math.exp((accepted - TARGET_ACCEPTANCE) / math.sqrt(1 + i / 4))

    def _trajectory(self) -> float:
        """One for every chain; the mean acceptance probability."""
        posterior = self.posterior
        time = math.pi / 2 / math.sqrt(posterior.gamma) * (0.5 + self._uniform())
        h = self.time_step * (SHORTEST + (1 - SHORTEST) * self._uniform())
        beta = self._beta[:, None]
        start = self._place
        p = torch.randn(start.u.shape, generator=self._generator, dtype=torch.float64)
        begin = self._beta * start.energy + p.square().sum(-1) / 2
        place = start
        for _ in range(max(1, min(MAX_LEAPS, round(time / h)))):
            p = p - h / 2 * beta * place.gradient
            place = posterior.evaluate(place.u + h * p)
            p = p - h / 2 * beta * place.gradient
            self.num_gradients += len(p)
        end = self._beta * place.energy + p.square().sum(-1) / 2
        probability = (begin - end).exp().clamp(max=1).nan_to_num(0.0)
        accept = torch.rand(len(p), generator=self._generator, dtype=torch.float64) < probability
        self._place = place.where(accept, start)
        return probability.mean().item()

    def _uniform(self) -> float:
        return torch.rand((), generator=self._generator).item()
