"""What the chains of one checkpoint left behind, as plain arrays."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

METADATA = "lambdahat.draws"


@dataclass(frozen=True)
class Draws:
    """Arrays by name; every row is one setting of the chains.

    `losses`, `baselines`: L_B(w) and L_B(w*) on the same minibatch B, (rows, chains, draws); `works`, `squares`: the
    loss' part of the virial, and ‖u‖², likewise; `excesses`, `virial_excesses`: what step size and gradient noise add
    to λ̂ and to half of the virial, (rows, chains, some draws); `probe_losses`, `probe_baselines`: of each sample of the
    probe set, (rows, chains, some draws, samples) and (rows, samples), of no samples unless they were kept;
    `diverged_at`, `acceptance`: (rows, chains); `epsilon`, `nbeta`, `gamma`, `num_free`: (rows,). λ̂ of a row is the
    mean of nbeta * (losses - baselines) less that of excesses, with (works + gamma * squares - num_free) / 2 less
    virial_excesses, whose mean is 0, as control variate.
    """

    arrays: Mapping[str, NDArray[Any]]
    settings: Mapping[str, Any]
    """Those of the job's LLC."""
    rows: tuple[str, ...]
    """What each row is."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


def from_bytes(content: bytes) -> Draws:
    """The draws in a file that the server gave."""
    length = int.from_bytes(content[:8], "little")
    about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][METADATA])
    return Draws(safetensors.numpy.load(content), about["settings"], tuple(about["rows"]))
