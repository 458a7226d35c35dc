"""devinterp 1.3: `estimate_learning_coeff_with_summary`.

    w ← w − (ε/2) [nβ ∇L_B(w) + γ (w − w*)] + N(0, ε)

The baseline is the mean loss at w* of as many minibatches as there are chains, other ones than the chains see; a
setting `init_loss="full"` gives it the loss on the whole data set instead, by the library's own function.
"""

from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from bench.peers.outcome import Outcome
from bench.peers.problem import PeerProblem, Sample
from bench.peers.protocol import PeerRun


def estimate(problem: PeerProblem, run: PeerRun, seed: int) -> Outcome:
    """λ̂ by the library's defaults wherever the run says nothing."""
    sampler, optim, utils = (import_module(f"devinterp.{name}") for name in ("slt.sampler", "optim", "utils"))
    settings = dict(run.sampler)
    method = settings.pop("sampling_method", "SGLD")
    full_baseline = settings.pop("init_loss", "default") == "full"
    kwargs: dict[str, Any] = settings
    if run.nbeta is not None:
        kwargs["nbeta"] = run.nbeta
    if run.gamma is not None:
        kwargs["localization"] = run.gamma

    # The library's own seeding of the baseline replaces the loader by another; this one leaves it, and is as good.
    torch.manual_seed(seed)
    loader = problem.loader(run.batch_size, run.fast_loader)
    evaluate = partial(_evaluate, problem)
    init_loss = None
    loss_evaluations = run.num_chains * min(run.batch_size, len(problem.x))
    if full_baseline:
        init_loss = utils.get_init_loss_full_batch(loader, problem.module, evaluate, torch.device("cpu"))
        loss_evaluations = len(problem.x)
    result = sampler.estimate_learning_coeff_with_summary(
        problem.module,
        loader,
        evaluate=evaluate,
        sampling_method=optim.SGLD if method == "SGLD" else getattr(optim.sgmcmc.SGMCMC, method),
        optimizer_kwargs=kwargs,
        num_draws=run.num_draws,
        num_chains=run.num_chains,
        num_burnin_steps=run.num_burnin_steps,
        init_loss=init_loss,
        device=torch.device("cpu"),
        verbose=False,
    )
    per_chain = [result[f"llc-chain/{chain}"] for chain in range(run.num_chains)]
    return Outcome(result["llc/mean"], per_chain, loss_evaluations)


def _evaluate(problem: PeerProblem, model: nn.Module, data: Sample) -> Tensor:
    x, y = data
    return problem.mean_loss(model(x), y)
