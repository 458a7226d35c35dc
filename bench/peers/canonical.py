"""canonical-interp: `LLCEstimator`, all chains in one vectorised call.

    w ← w − (ε/2) [nβ ∇L_B(w) + γ (w − w*)] + N(0, ε)

The baseline is the loss on the whole data set. Chains of one call share their minibatches, and an epoch's order is
repeated for ever; a setting `chain_batch=1` makes a call, and an order, of each chain.
"""

import itertools
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, TypeVar

import torch

from bench.peers.outcome import Outcome
from bench.peers.problem import PeerProblem
from bench.peers.protocol import PeerRun

T = TypeVar("T")
CALL_SETTINGS = ("compile", "chain_batch")


def estimate(problem: PeerProblem, run: PeerRun, seed: int) -> Outcome:
    """λ̂ by the library's defaults wherever the run says nothing."""
    if not hasattr(itertools, "batched"):
        itertools.__dict__["batched"] = _batched
    slt = import_module("canonical_interp.slt")
    # Each estimate compiles functions of its own, and after eight torch would silently compile no more.
    torch.compiler.reset()
    settings: dict[str, Any] = dict(run.sampler)
    call = {name: settings.pop(name) for name in CALL_SETTINGS if name in settings}
    if run.nbeta is not None:
        settings["nbeta"] = run.nbeta
    if run.gamma is not None:
        settings["localization"] = run.gamma
    estimator = slt.LLCEstimator(
        draws=run.num_draws,
        chains=run.num_chains,
        burnin_steps=run.num_burnin_steps,
        steps_bw_draws=1,
        **settings,
    )
    estimator.estimate_llc(
        problem.module,
        problem.loader(run.batch_size, run.fast_loader),
        criterion_fn=problem.mean_loss,
        seed=seed,
        show_progress=False,
        **call,
    )
    metrics = estimator.get_metrics()
    return Outcome(float(metrics["llc_mean"]), metrics["llcs"].tolist(), len(problem.x))


def _batched(iterable: Iterable[T], n: int) -> Iterator[tuple[T, ...]]:
    """`itertools.batched` of Python 3.12, from its documentation."""
    iterator = iter(iterable)
    while batch := tuple(itertools.islice(iterator, n)):
        yield batch
