"""devinterp 2.0: `sample` and `compute_llc`.

    w ← w − (ε/2) [nβ ∇L_B(w) + γ (w − w*)] + N(0, ε)

It takes sequences of tokens and a loss of each; other data go in as the sample's index, twice, with a loss that looks
the sample up. It averages the burn-in into the estimate; a setting `discard_burnin=True` averages over the draws alone,
which the library stores but has no function for. A chain that fails leaves NaN, and its average skips them.
"""

import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bench.peers.outcome import Outcome
from bench.peers.problem import PeerProblem
from bench.peers.protocol import PeerRun

# The step size and the temperature have no default: those of the library's README.
README_LR = 1e-3
README_NBETA = 30.0
DEFAULT_INIT_LOSS_BATCHES = 32


class Indices(Dataset[dict[str, Tensor]]):
    """Which sample, as a sequence of two tokens, the shortest that the library takes."""

    def __init__(self, num_samples: int) -> None:
        self._items = [{"input_ids": pair} for pair in torch.arange(num_samples).repeat(2, 1).T]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return dict(self._items[index])


def estimate(problem: PeerProblem, run: PeerRun, seed: int) -> Outcome:
    """λ̂ by the library's defaults wherever the run says nothing."""
    sampling, llc = (import_module(f"devinterp.slt.{name}") for name in ("sampling", "llc"))
    settings: dict[str, Any] = {"lr": README_LR, **run.sampler}
    discard_burnin = settings.pop("discard_burnin", False)
    nbeta = README_NBETA if run.nbeta is None else run.nbeta
    if run.gamma is not None:
        settings["localization"] = run.gamma

    def loss(model: nn.Module, input_ids: Tensor) -> Tensor:
        which = input_ids[:, 0]
        return problem.loss(model(problem.x[which]), problem.y[which]).unsqueeze(1)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = sampling.sample(
            problem.module,
            Indices(len(problem.x)),
            observables={},
            n_beta=nbeta,
            num_chains=run.num_chains,
            num_draws=run.num_draws,
            batch_size=run.batch_size,
            num_burnin_steps=run.num_burnin_steps,
            # Chains take the seeds from this one on, so those of neighbouring seeds must not be neighbours.
            init_seed=1000 * seed,
            device="cpu",
            loss_fn=loss,
            output_path=Path(folder) / "samples.zarr",
            **settings,
        )
        result = llc.compute_llc(samples)
        mean, per_chain = float(result.llc_mean), result.llc_per_chain.values
        if discard_burnin:
            stored = samples.dataset
            draws = stored.sampling_loss.mean(dim=["draw", "batch", "token_pos"])
            per_chain = nbeta * (draws - float(stored.init_loss.mean())).values
            mean = float(per_chain.mean())
    failed = [str(warning.message) for warning in caught if "Chain failed" in str(warning.message)]
    batches = settings.get("num_init_loss_batches", DEFAULT_INIT_LOSS_BATCHES)
    return Outcome(mean, per_chain.tolist(), run.num_chains * batches * run.batch_size, "; ".join(failed) or None)
