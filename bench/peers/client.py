"""Asks a peer, in its own process and environment, for estimates of λ."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bench.peers.protocol import Peer, PeerAnswer, PeerEstimate, PeerRequest, PeerRun

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venv-peers"


@dataclass(frozen=True)
class Problem:
    """spec: a model of `llc.models` as JSON, {"family": "potential", "name": ...} or {"family": "quadratic", "h": ...};
    w_star: (d,), flat in the model's layout; arrays: the model's data, none for a loss in closed form.
    """

    spec: Mapping[str, Any]
    w_star: NDArray[np.floating[Any]]
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


class PeerError(Exception):
    """A peer's process that gave no answer; not a peer's bad number, which is one."""


def peer_estimates(
    peer: Peer, problem: Problem, runs: Sequence[PeerRun], warmup: bool = False, timeout: float = 3600
) -> list[PeerEstimate]:
    """Every run's estimates, seed by seed, from one single-threaded process. `PeerEstimate.run` counts the runs.

    Raises: PeerError if the environment is missing or the process fails.
    """
    python = ENVIRONMENTS / peer / "bin" / "python"
    if not python.exists():
        raise PeerError(f"{peer} is not installed: make bench-peers")
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.safetensors"
        named = {"w_star": problem.w_star, **problem.arrays}
        save_file({name: np.ascontiguousarray(array) for name, array in named.items()}, arrays)
        request = PeerRequest(peer=peer, spec=dict(problem.spec), arrays=arrays, runs=tuple(runs), warmup=warmup)
        process = subprocess.run(
            [python, "-m", "bench.peers.run"],
            input=request.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "TQDM_DISABLE": "1",
                "PYTHONWARNINGS": "ignore",
                "HF_HUB_OFFLINE": "1",
            },
            check=False,
        )
    if process.returncode:
        raise PeerError(f"{peer} failed:\n{process.stderr[-3000:]}")
    return list(PeerAnswer.model_validate_json(process.stdout).estimates)


def steps_per_second(peer: Peer, problem: Problem, run: PeerRun, num_steps: int) -> float:
    """Row-steps, steps of one chain, per second of CPU time, warm: one thread, whatever else the machine does.

    From the times of a run of `num_steps` and of one four times as long, the better of two each, so that imports,
    set-up, compiling and the baseline, which both have, drop out. Compiling, which takes seconds, varies by tenths: let
    3 num_steps take several seconds. The run's own length is not used.

    Raises: PeerError if a run failed, or the longer ones took no longer.
    """
    lengths = (num_steps, num_steps, 4 * num_steps, 4 * num_steps)
    runs = [run.model_copy(update={"num_burnin_steps": 0, "num_draws": n, "seeds": (0,)}) for n in lengths]
    estimates = peer_estimates(peer, problem, runs, warmup=True)
    if errors := [estimate.error for estimate in estimates if estimate.error]:
        raise PeerError(f"{peer}: {errors[0]}")
    seconds = [estimate.cpu_seconds for estimate in estimates]
    short, long = min(seconds[:2]), min(seconds[2:])
    if long <= short:
        raise PeerError(f"{peer}: {num_steps} steps are too few to time")
    return run.num_chains * 3 * num_steps / (long - short)
