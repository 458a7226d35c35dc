"""model + data + loss → a function of a flat parameter vector, sample by sample.

`L_n(w) = (1/n) Σ_i ℓ_i(w)`; everything in this package is built on the ℓ_i.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llc.layout import Layout
from llc.losses import LOSSES
from llc.models import Model

Batch = dict[str, Tensor]


class Objective(Protocol):
    """Per-sample losses of a flat parameter vector w (d,) on a data set of n samples."""

    @property
    def layout(self) -> Layout:
        """Names and shapes of the d parameters."""
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
    """The objective of a model on the arrays 'x' and `model.targets`, kept in memory on `device`. The model is in
    evaluation mode.
    """

    def __init__(
        self, model: Model, arrays: Mapping[str, NDArray[np.generic]], device: torch.device | str = "cpu"
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        self.layout = model.layout()
        self._data = {name: self._tensor(arrays[name]) for name in {"x", model.targets}}

    @property
    def num_samples(self) -> int:
        return len(self._data["x"])

    def batch(self, indices: Tensor) -> Batch:
        # Whole samples are copied, several times faster than by indexing.
        flat = indices.flatten()
        return {name: array.index_select(0, flat).unflatten(0, indices.shape) for name, array in self._data.items()}

    def per_sample_loss(self, w: Tensor, batch: Batch) -> Tensor:
        outputs = self.model.forward(self.layout.unflatten(w), batch["x"])
        return LOSSES[self.model.loss](outputs, batch[self.model.targets])

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        dtype = np.float32 if array.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.array(array, dtype=dtype)).to(self.device)
