"""A problem as the peers take it: a module, tensors, a per-sample loss. The forward passes are `llc.models`' own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from llc.checkpoints import read_tensors
from llc.exact import POTENTIALS
from llc.layout import Layout
from llc.losses import LOSSES
from llc.models import MODEL_SPEC

Sample = tuple[Tensor, Tensor]

EMPTY_BATCHES = 64
"""Batches of an epoch of a loss that has no data: enough that starting epochs costs the peers nothing."""


class PeerModule(nn.Module):
    """Parameters at w*, by name, and a function of them and of inputs x (batch, ...)."""

    def __init__(
        self, layout: Layout, w_star: Tensor, forward: Callable[[Mapping[str, Tensor], Tensor], Tensor]
    ) -> None:
        super().__init__()
        self._function = forward
        # A parameter's own name may not have a dot.
        self._names = {name: name.replace(".", "__") for name in layout.shapes}
        for name, value in layout.unflatten(w_star).items():
            self.register_parameter(self._names[name], nn.Parameter(value.clone()))

    def forward(self, x: Tensor) -> Tensor:
        return self._function({name: getattr(self, own) for name, own in self._names.items()}, x)


@dataclass(frozen=True)
class PeerProblem:
    """module: (batch, ...) → outputs; loss: outputs, targets → (batch,); x, y: (n, ...)."""

    module: PeerModule
    loss: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    y: Tensor

    def mean_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.loss(outputs, y).mean()

    def loader(self, batch_size: int, fast: bool) -> DataLoader[Sample]:
        """Shuffled batches (x, y)."""
        rows = Rows(self.x, self.y)
        if fast:
            return DataLoader(rows, batch_size=batch_size, shuffle=True, collate_fn=_as_it_is)
        return DataLoader(_Slow(rows), batch_size=batch_size, shuffle=True)


class Rows(Dataset[Sample]):
    """Samples, one or a whole batch at once."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Sample:
        return self.x[index], self.y[index]

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        where = torch.tensor(indices)
        return self.x[where], self.y[where]


class _Slow(Dataset[Sample]):
    """The same samples one by one, as torch's TensorDataset gives them."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self._rows[index]


def read_problem(spec: Mapping[str, Any], arrays: Path, batch_size: int) -> PeerProblem:
    """The problem of a request. A loss in closed form has empty samples for its data."""
    tensors = {name: _tensor(array) for name, array in read_tensors(arrays, "the problem").items()}
    w_star = tensors["w_star"]
    if spec["family"] in ("potential", "quadratic"):
        loss = POTENTIALS[spec["name"]].loss if spec["family"] == "potential" else _quadratic(spec["h"])
        nothing = torch.zeros(EMPTY_BATCHES * batch_size, 1)

        def forward(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
            return loss(params["w"]).expand(len(x))

        module = PeerModule(Layout({"w": tuple(w_star.shape)}), w_star, forward)
        return PeerProblem(module, lambda outputs, _: outputs, nothing, nothing)
    model = MODEL_SPEC.validate_python(dict(spec))
    module = PeerModule(model.layout(), w_star, model.forward)
    return PeerProblem(module, LOSSES[model.loss], tensors["x"], tensors[model.targets])


def _quadratic(h: Sequence[float]) -> Callable[[Tensor], Tensor]:
    curvature = torch.tensor(h)
    return lambda w: (curvature * w.square()).sum(-1) / 2


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _as_it_is(batch: Any) -> Any:
    return batch
