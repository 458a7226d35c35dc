"""The only sampling loop: rows of (chain, checkpoint) walk from their anchors w*_k, all with the same draws.

At every kept step it records the minibatch loss `L_B(w)` beside the **paired baseline** `L_B(w*)` of the same
minibatch B, whose noise cancels in the difference, and the virial `(w − w*)·(nβ ∇L_B(w) + γ (w − w*)) / d`, whose
expectation at equilibrium is 1 (integration by parts). Minibatches are drawn with replacement, for each chain its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llc.ensemble import chain_gradients
from llc.objective import Objective
from llc.randomness import CommonDraws
from llc.samplers import sgld
from llc.settings import LLCSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """What the chains of a series recorded: float64, (checkpoints, chains, draws); NaN after divergence."""

    losses: Array
    """L_B(w), the minibatch's mean loss at the draw."""
    baselines: Array
    """L_B(w*), the same minibatch's at the anchor."""
    virials: Array
    """(w − w*)·(nβ ∇L_B + γ (w − w*)) / d."""
    distances: Array
    """‖w − w*‖."""
    diverged_at: NDArray[np.int64]
    """(checkpoints, chains): the first step at which the loss was not finite, or −1."""
    nbeta: float
    gamma: float


def sample(
    objective: Objective,
    anchors: Tensor,
    baseline_losses: Tensor,
    settings: LLCSettings,
    report: Callable[[int], None] = lambda _: None,
) -> Draws:
    """Run the chains. anchors: (checkpoints, d); baseline_losses: (checkpoints, n), the per-sample losses there;
    report: called with the number of row-steps done since it was last called.
    """
    num_checkpoints, d = anchors.shape
    chains, nbeta = settings.num_chains, settings.nbeta_for(objective.num_samples)
    w = anchors.expand(chains, num_checkpoints, d)
    draws = CommonDraws(settings.seed, chains, d, objective.num_samples, settings.batch_size)
    record = np.full((4, settings.num_draws, chains, num_checkpoints), np.nan)
    diverged_at = np.full((chains, num_checkpoints), -1)

    for step in range(settings.num_steps):
        indices = torch.from_numpy(draws.minibatches(step)).to(anchors.device)
        losses, gradients = chain_gradients(objective, w, objective.batch(indices))
        finite = losses.isfinite().cpu().numpy()
        diverged_at[~finite & (diverged_at < 0)] = step
        since_burnin = step - settings.num_burnin_steps
        if since_burnin >= 0 and since_burnin % settings.steps_between_draws == 0:
            delta = w - anchors
            squares = delta.square().sum(-1)
            virials = (nbeta * (delta * gradients).sum(-1) + settings.gamma * squares) / d
            baselines = baseline_losses[:, indices].mean(-1).T
            rows = torch.stack([losses, baselines, virials, squares.sqrt()])
            record[:, since_burnin // settings.steps_between_draws] = rows.double().cpu().numpy()
        noise = torch.from_numpy(draws.noise(step)).to(anchors.device).unsqueeze(1)
        w = sgld.step(settings.sampler, w, anchors, gradients, noise, nbeta, settings.gamma)
        report(chains * num_checkpoints)

    losses, baselines, virials, distances = np.ascontiguousarray(record.transpose(0, 3, 2, 1))
    return Draws(losses, baselines, virials, distances, diverged_at.T, nbeta, settings.gamma)
