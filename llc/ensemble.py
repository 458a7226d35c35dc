"""The matrix of rows: losses, gradients and Hessian products of many parameter vectors at once.

A row is one parameter vector. The gradient of the sum of the rows' losses is every row's own, so that one backward pass
gives them all.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import vmap

from llc.objective import Batch, Objective

SAMPLES_PER_CALL = 4096


def chain_gradients(objective: Objective, w: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Minibatch losses and gradients: w (chains, checkpoints, d), each chain with its own minibatch
    (chains, batch, ...) shared by all checkpoints → (chains, checkpoints), (chains, checkpoints, d).
    """
    per_checkpoint = vmap(objective.per_sample_loss, in_dims=(0, None))
    w = w.detach().requires_grad_()
    losses = vmap(per_checkpoint, in_dims=(0, 0))(w, batch).mean(-1)
    (gradients,) = torch.autograd.grad(losses.sum(), w)
    return losses.detach(), gradients


def per_sample_losses(objective: Objective, w: Tensor) -> Tensor:
    """ℓ_i of every row on the whole data set: (rows, d) → (rows, n)."""
    with torch.no_grad():
        return torch.cat([_losses(objective, w, batch) for batch in _passes(objective, objective.num_samples)], dim=-1)


class HessianOperator:
    """v ↦ H v at one w (d,), H the Hessian of the mean loss of `num_samples` samples, evenly spaced in the data set.

    Double backward, which is exact (forward-over-reverse is not, through LayerNorm). The graph of the gradient is kept
    between products while all samples fit in one call, and built anew in every product otherwise.
    """

    def __init__(self, objective: Objective, w: Tensor, num_samples: int) -> None:
        self._objective = objective
        self._w = w.detach().clone().requires_grad_()
        self._num_samples = min(num_samples, objective.num_samples)
        self._kept = list(self._gradients()) if self._num_samples <= SAMPLES_PER_CALL else None

    def __call__(self, v: Tensor) -> Tensor:
        """(d,) → (d,)."""
        product = torch.zeros_like(v)
        for gradient in self._kept or self._gradients():
            (part,) = torch.autograd.grad(gradient, self._w, v, retain_graph=True)
            product += part
        return product

    def _gradients(self) -> Iterator[Tensor]:
        """Gradients of parts of the mean loss, with their graphs."""
        for batch in _passes(self._objective, self._num_samples):
            loss = self._objective.per_sample_loss(self._w, batch).sum() / self._num_samples
            yield torch.autograd.grad(loss, self._w, create_graph=True)[0]


def _losses(objective: Objective, w: Tensor, batch: Batch) -> Tensor:
    return vmap(objective.per_sample_loss, in_dims=(0, None))(w, batch)


def _passes(objective: Objective, num_samples: int) -> Iterator[Batch]:
    """`num_samples` samples, evenly spaced in the data set, in bounded batches."""
    indices = torch.arange(num_samples, device=objective.device) * objective.num_samples // num_samples
    for chunk in indices.split(SAMPLES_PER_CALL):
        yield objective.batch(chunk)
