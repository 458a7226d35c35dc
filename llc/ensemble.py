"""The matrix of rows: losses, gradients and Hessian products of many parameter vectors at once.

A row is one parameter vector. Where rows are small, they go through the model together (vmap), and one backward pass of
the sum of their losses gives every row's gradient; where they are large, one by one. Which of the two, and how many at
a time, is a `Plan`, chosen once by timing (`llc.planning`) and kept, so that a run done again gives the same bits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from llc.objective import Batch, Objective


@dataclass(frozen=True)
class Plan:
    """How rows go through the model."""

    vectorised: bool = True
    rows_per_call: int = 32
    """Rows of one call; 1 if not vectorised."""
    compiled: bool = False
    """Whether `torch.compile` fuses what a call does."""
    samples_per_call: int = 4096
    """Samples of one row that go through the model together in passes over the data."""

    def pieces(self, chains: int, rows: int, num_parameters: int) -> Iterator[tuple[slice, slice]]:
        """(chains, rows) in pieces that step together, all chains of a row in one where they fit: the rows of a call,
        or, where these go one by one, as many as have `PIECE_NUMBERS`.
        """
        size = self.rows_per_call if self.vectorised else max(1, PIECE_NUMBERS // num_parameters)
        chains_a_piece, rows_a_piece = min(chains, size), max(1, size // chains)
        for row in range(0, rows, rows_a_piece):
            for chain in range(0, chains, chains_a_piece):
                yield slice(chain, min(chain + chains_a_piece, chains)), slice(row, min(row + rows_a_piece, rows))


PLAN = Plan()

PIECE_NUMBERS = 2**20
"""Parameters of the rows that step together, however they go through the model: fewer cost calls, more cost cache."""


@dataclass(frozen=True)
class Gradients:
    """Of the mean losses over minibatches, for a piece of the matrix."""

    losses: Tensor
    """(chains, rows)."""
    gradients: Tensor
    """(chains, rows, d)."""
    curvatures: Tensor | None = None
    """(chains, rows, d): z∘(Hz), whose mean over random signs z is the diagonal of the Hessian."""


@dataclass(frozen=True)
class Terms:
    """Which function of a minibatch's losses is differentiated."""

    weights: Tensor | None = None
    """(rows, batch) of the samples in each row's mean loss; None: the plain mean."""
    factors: Tensor | None = None
    """(rows,) of the losses that gradients and curvatures are of; None: 1."""
    probe: Tensor | None = None
    """Random signs (chains, 1, d), for the curvatures; None: no curvatures."""

    def of(self, chain: int, row: int) -> "Terms":
        """Those of one row: (batch,), () and (d,)."""
        return Terms(
            None if self.weights is None else self.weights[row],
            None if self.factors is None else self.factors[row],
            None if self.probe is None else self.probe[chain, 0],
        )


PLAIN = Terms()


def minibatch_gradients(
    objective: Objective, w: Tensor, batch: Batch, terms: Terms = PLAIN, *, vectorised: bool = True
) -> Gradients:
    """w (chains, rows, d), each chain with its own minibatch (chains, batch, ...) shared by all rows."""
    if vectorised:
        return all_at_once(objective, w, batch, terms)
    return one_by_one(partial(alone, objective), w, batch, terms)


def all_at_once(objective: Objective, w: Tensor, batch: Batch, terms: Terms) -> Gradients:
    """All rows in one call of the model."""
    per_row = vmap(objective.per_sample_loss, in_dims=(0, None))
    w = w.detach().requires_grad_()
    return _differentiate(vmap(per_row, in_dims=(0, 0))(w, batch), w, terms)


def alone(objective: Objective, w: Tensor, batch: Batch, terms: Terms) -> Gradients:
    """One row (d,) with its minibatch (batch, ...): losses (), gradients and curvatures (d,)."""
    w = w.detach().requires_grad_()
    return _differentiate(objective.per_sample_loss(w, batch), w, terms)


def one_by_one(call: Callable[[Tensor, Batch, Terms], Gradients], w: Tensor, batch: Batch, terms: Terms) -> Gradients:
    """Every row by a call of its own. call: as `alone`, without the objective."""
    losses, gradients = w.new_empty(w.shape[:2]), torch.empty_like(w)
    curvatures = None if terms.probe is None else torch.empty_like(w)
    for chain in range(w.shape[0]):
        minibatch = {name: array[chain] for name, array in batch.items()}
        for row in range(w.shape[1]):
            found = call(w[chain, row], minibatch, terms.of(chain, row))
            if losses.numel() == 1:  # nothing to gather
                curvatures = None if found.curvatures is None else found.curvatures.view_as(w)
                return Gradients(found.losses.view(1, 1), found.gradients.view_as(w), curvatures)
            losses[chain, row], gradients[chain, row] = found.losses, found.gradients
            if curvatures is not None and found.curvatures is not None:
                curvatures[chain, row] = found.curvatures
    return Gradients(losses, gradients, curvatures)


def _differentiate(per_sample: Tensor, w: Tensor, terms: Terms) -> Gradients:
    """per_sample: (..., batch) losses at w (..., d)."""
    losses = per_sample.mean(-1) if terms.weights is None else (per_sample * terms.weights).sum(-1)
    factors = torch.ones_like(losses) if terms.factors is None else terms.factors.expand_as(losses)
    (gradients,) = torch.autograd.grad(losses, w, factors, create_graph=terms.probe is not None)
    curvatures = None
    if terms.probe is not None:
        (products,) = torch.autograd.grad((gradients * terms.probe).sum(), w)
        curvatures = terms.probe * products
    return Gradients(losses.detach(), gradients.detach(), curvatures)


def mean_gradients(objective: Objective, w: Tensor, plan: Plan = PLAN) -> Tensor:
    """∇L_n of every row on the whole data set: (rows, d) → (rows, d)."""
    total = torch.zeros_like(w)
    for row, one in enumerate(w):
        for batch in _passes(objective, objective.num_samples, plan):
            leaf = one.detach().requires_grad_()
            loss = objective.per_sample_loss(leaf, batch).sum() / objective.num_samples
            total[row] += torch.autograd.grad(loss, leaf)[0]
    return total


def per_sample_losses(objective: Objective, w: Tensor, samples: Tensor | None = None, plan: Plan = PLAN) -> Tensor:
    """ℓ_i of every row on the whole data set, or on the samples of these indices: (rows, d) → (rows, n)."""
    if samples is None:
        samples = torch.arange(objective.num_samples, device=objective.device)
    with torch.no_grad():
        parts = [objective.batch(chunk) for chunk in samples.split(plan.samples_per_call)]
        return torch.stack([torch.cat([objective.per_sample_loss(one, part) for part in parts]) for one in w])


class HessianOperator:
    """v ↦ H v at one w (d,), H the Hessian of the mean loss of `num_samples` samples, evenly spaced in the data set.

    Double backward, which is exact (forward-over-reverse is not, through LayerNorm). The graph of the gradient is kept
    between products while all samples fit in one call, and built anew in every product otherwise.
    """

    def __init__(self, objective: Objective, w: Tensor, num_samples: int, plan: Plan = PLAN) -> None:
        self._objective, self._plan = objective, plan
        self._w = w.detach().clone().requires_grad_()
        self._num_samples = min(num_samples, objective.num_samples)
        self._kept = list(self._gradients()) if self._num_samples <= plan.samples_per_call else None

    def __call__(self, v: Tensor) -> Tensor:
        """(d,) → (d,)."""
        product = torch.zeros_like(v)
        for gradient in self._kept or self._gradients():
            (part,) = torch.autograd.grad(gradient, self._w, v, retain_graph=True)
            product += part
        return product

    def _gradients(self) -> Iterator[Tensor]:
        """Gradients of parts of the mean loss, with their graphs."""
        for batch in _passes(self._objective, self._num_samples, self._plan):
            loss = self._objective.per_sample_loss(self._w, batch).sum() / self._num_samples
            yield torch.autograd.grad(loss, self._w, create_graph=True)[0]


def _passes(objective: Objective, num_samples: int, plan: Plan) -> Iterator[Batch]:
    """`num_samples` samples, evenly spaced in the data set, in bounded batches."""
    indices = torch.arange(num_samples, device=objective.device) * objective.num_samples // num_samples
    for chunk in indices.split(plan.samples_per_call):
        yield objective.batch(chunk)
