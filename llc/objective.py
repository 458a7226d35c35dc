"""model + data + loss → a function of a flat parameter vector, sample by sample.

`L_n(w) = (1/n) Σ_i ℓ_i(w)`; everything in this package is built on the ℓ_i.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llc.losses import LOSSES
from llc.models import Model

Batch = dict[str, Tensor]


class Objective(Protocol):
    """Per-sample losses of a flat parameter vector w (d,) on a data set of n samples."""

    @property
    def num_parameters(self) -> int:
        """d."""
        ...

    @property
    def num_samples(self) -> int:
        """n."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the data lie and the computation runs."""
        ...

    def batch(self, indices: Tensor) -> Batch:
        """The samples at `indices`, of any shape; their dimensions come first in every array."""
        ...

    def per_sample_loss(self, w: Tensor, batch: Batch) -> Tensor:
        """(d,), samples (batch, ...) → (batch,). `torch.func.vmap` maps it over w and batch."""
        ...


class ModelObjective:
    """The objective of a model on arrays 'x' and 'y', kept in memory on `device`. The model is in evaluation mode."""

    def __init__(
        self, model: Model, arrays: Mapping[str, NDArray[np.generic]], device: torch.device | str = "cpu"
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        self._layout = model.layout()
        self._data = {name: self._tensor(arrays[name]) for name in ("x", "y")}

    @property
    def num_parameters(self) -> int:
        return self._layout.num_parameters

    @property
    def num_samples(self) -> int:
        return len(self._data["x"])

    def batch(self, indices: Tensor) -> Batch:
        return {name: array[indices] for name, array in self._data.items()}

    def per_sample_loss(self, w: Tensor, batch: Batch) -> Tensor:
        outputs = self.model.forward(self._layout.unflatten(w), batch["x"])
        return LOSSES[self.model.loss](outputs, batch["y"])

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        dtype = np.float32 if array.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.array(array, dtype=dtype)).to(self.device)
