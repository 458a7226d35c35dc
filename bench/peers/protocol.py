"""What our process asks of a peer's, and what comes back: JSON over standard input and output."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from llc.settings import Frozen

Peer = Literal["devinterp13", "devinterp20", "canonical"]
"""devinterp 1.3.x, devinterp 2.0.x, canonical-interp: the names of their environments."""


class PeerRun(Frozen):
    """One estimate's settings, repeated for every seed. `nbeta` and `gamma` are in our convention, which all the peers
    share; what is null or left out is the peer's own default.
    """

    sampler: dict[str, Any] = Field(default={}, description="By the peer's own names: bench/peers/README.md.")
    nbeta: float | None = None
    gamma: float | None = None
    num_chains: int = 4
    num_burnin_steps: int = 0
    num_draws: int = 100
    batch_size: int = 32
    seeds: tuple[int, ...] = (0,)
    fast_loader: bool = Field(
        default=True,
        description="Batches by one indexing of tensors, faster than the row-by-row loader of the peers' guides.",
    )

    @property
    def num_steps(self) -> int:
        """Steps of one chain."""
        return self.num_burnin_steps + self.num_draws

    @property
    def gradient_evaluations(self) -> int:
        """Samples whose gradient is taken, of all chains."""
        return self.num_chains * self.num_steps * self.batch_size


class PeerRequest(Frozen):
    """A problem and the estimates wanted of it, all computed by one process."""

    peer: Peer
    spec: dict[str, Any] = Field(description="A model of llc.models, a potential by name, or a quadratic's curvatures.")
    arrays: Path = Field(description="A .safetensors file with 'w_star' (d,) and, for a model, its data.")
    runs: tuple[PeerRun, ...]
    warmup: bool = Field(default=False, description="Run a few steps of the first run before any clock starts.")


class PeerEstimate(Frozen):
    """One estimate of one seed. A NaN or infinite number is null."""

    run: int = Field(description="Which of the request's runs.")
    seed: int
    llc: float | None = Field(description="The peer's own mean over chains.")
    per_chain: tuple[float | None, ...]
    std_error: float | None = Field(description="Standard deviation of the chains / √chains; no peer reports its own.")
    gradient_evaluations: int = Field(description="Samples whose gradient was taken.")
    loss_evaluations: int = Field(description="Samples of further forward passes: the baseline's.")
    seconds: float = Field(description="Of the peer's call: sampling with its own set-up, not imports or data.")
    cpu_seconds: float = Field(description="Of the process, meanwhile: what the call takes on an idle machine.")
    error: str | None = None


class PeerAnswer(Frozen):
    """Estimates by run, then seed."""

    estimates: tuple[PeerEstimate, ...]
