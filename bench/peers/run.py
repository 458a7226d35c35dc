"""Runs a peer, inside that peer's environment and with this checkout on its path:

python -m bench.peers.run < request.json > answer.json
"""

import contextlib
import math
import statistics
import sys
import time
from importlib import import_module

import torch

from bench.peers.outcome import Outcome
from bench.peers.problem import read_problem
from bench.peers.protocol import PeerAnswer, PeerEstimate, PeerRequest

WARMUP = {"num_burnin_steps": 0, "num_draws": 3}


def main() -> None:
    request = PeerRequest.model_validate_json(sys.stdin.read())
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):  # the answer alone is on standard output
        if request.warmup:
            first = request.runs[0]
            _estimate(request.model_copy(update={"runs": (first.model_copy(update=WARMUP),)}), 0, first.seeds[0])
        estimates = [_estimate(request, i, seed) for i, run in enumerate(request.runs) for seed in run.seeds]
    sys.stdout.write(PeerAnswer(estimates=tuple(estimates)).model_dump_json())


def _estimate(request: PeerRequest, index: int, seed: int) -> PeerEstimate:
    run = request.runs[index]
    peer = import_module(f"bench.peers.{request.peer}")
    problem = read_problem(request.spec, request.arrays, run.batch_size)
    start, cpu_start = time.perf_counter(), time.process_time()
    try:
        outcome: Outcome = peer.estimate(problem, run, seed)
    except Exception as error:  # a peer that gives up is an answer: no number, and why
        outcome = Outcome(math.nan, [math.nan] * run.num_chains, 0, f"{type(error).__name__}: {error}"[:500])
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    chains = outcome.per_chain
    spread = statistics.stdev(chains) if len(chains) > 1 and all(map(math.isfinite, chains)) else math.nan
    return PeerEstimate(
        run=index,
        seed=seed,
        llc=_finite(outcome.llc),
        per_chain=tuple(_finite(chain) for chain in chains),
        std_error=_finite(spread / math.sqrt(len(chains))),
        gradient_evaluations=run.gradient_evaluations,
        loss_evaluations=outcome.loss_evaluations,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        error=outcome.error,
    )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


if __name__ == "__main__":
    main()
