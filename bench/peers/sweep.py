"""A peer at its best: a small sweep of step size, sampler and minibatch, judged by the truth.

That favours the peer twice. It is told which settings came closest to an answer that a user doesn't have, and it is
spared the cost of finding them. What a sweep returns is a bound on what the peer can do, not what it does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench.peers.client import Problem, peer_estimates
from bench.peers.protocol import Peer, PeerEstimate, PeerRun

EPSILONS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
REFINEMENTS = (10**-0.5, 10**0.5)
"""Factors of the best step size that are tried next."""

BURNIN_SHARE = 0.5
"""Of a chain's steps; two of the peers warn below it."""

STEP_NAMES: Mapping[Peer, str] = {"devinterp13": "lr", "devinterp20": "lr", "canonical": "learning_rate"}

CHOICES: Mapping[Peer, Sequence[Mapping[str, Any]]] = {
    "devinterp13": (
        {"init_loss": "full"},
        {"init_loss": "full", "sampling_method": "rmsprop_sgld"},
    ),
    "devinterp20": (
        {"discard_burnin": True, "match_sampling_input_ids_across_chains": False},
        {"discard_burnin": True, "match_sampling_input_ids_across_chains": False, "sampling_method": "rmsprop_sgld"},
    ),
    "canonical": ({"compile": False}, {"compile": False, "chain_batch": 1}),
}
"""What each peer offers beside the step size: its samplers, its best baseline, independent minibatches."""


@dataclass(frozen=True)
class Tried:
    """One setting of a sweep. rmse: against the truth, over seeds; infinite if any seed gave no number."""

    run: PeerRun
    rmse: float
    estimates: tuple[PeerEstimate, ...]


def sweep(
    peer: Peer,
    problem: Problem,
    truth: float,
    *,
    nbeta: float,
    gamma: float,
    gradient_evaluations: int,
    batch_sizes: Sequence[int],
    num_chains: int = 4,
    epsilons: Sequence[float] = EPSILONS,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Tried]:
    """All that was tried, best first. A setting's minibatch decides its number of steps: all take the gradients of the
    same number of samples, `gradient_evaluations`, over all chains.
    """

    def run(epsilon: float, choice: Mapping[str, Any], batch_size: int) -> PeerRun:
        num_steps = max(2, gradient_evaluations // (num_chains * batch_size))
        num_burnin_steps = int(BURNIN_SHARE * num_steps)
        baseline = {"num_init_loss_batches": _whole(problem, batch_size)} if peer == "devinterp20" else {}
        return PeerRun(
            sampler={STEP_NAMES[peer]: epsilon, **choice, **baseline},
            nbeta=nbeta,
            gamma=gamma,
            num_chains=num_chains,
            num_burnin_steps=num_burnin_steps,
            num_draws=num_steps - num_burnin_steps,
            batch_size=batch_size,
            seeds=tuple(seeds),
        )

    first = _judge(peer, problem, truth, [run(*point) for point in product(epsilons, CHOICES[peer], batch_sizes)])
    best = first[0].run
    closer = [
        best.model_copy(update={"sampler": {**best.sampler, STEP_NAMES[peer]: factor * best.sampler[STEP_NAMES[peer]]}})
        for factor in REFINEMENTS
    ]
    return _sorted([*first, *_judge(peer, problem, truth, closer)])


def _judge(peer: Peer, problem: Problem, truth: float, runs: Sequence[PeerRun]) -> list[Tried]:
    estimates = peer_estimates(peer, problem, runs)
    tried = []
    for i, run in enumerate(runs):
        own = tuple(estimate for estimate in estimates if estimate.run == i)
        errors = [math.inf if estimate.llc is None else estimate.llc - truth for estimate in own]
        tried.append(Tried(run, math.sqrt(sum(error**2 for error in errors) / len(errors)), own))
    return _sorted(tried)


def _sorted(tried: Sequence[Tried]) -> list[Tried]:
    return sorted(tried, key=lambda one: one.rmse)


def _whole(problem: Problem, batch_size: int) -> int:
    """Minibatches in the whole data set."""
    return max(1, len(problem.arrays["x"]) // batch_size) if problem.arrays else 1
