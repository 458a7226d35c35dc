"""Objectives whose gradient on the whole data set is cheap: what a reference run samples.

Of a linear network `x ↦ W x`, W = W_L … W_1, the loss on all data depends on them through second moments alone: with
Σ = XᵀX/n, the least-squares map B and a factor A Aᵀ = Σ,

`L_n(w) = ½‖(W − B) A‖² + const`,

so that a full gradient costs a few products of matrices, whatever n.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llc.layout import Layout
from llc.objective import Batch, ModelObjective, Objective


class OneSample:
    """A loss that needs no data, as an objective of one sample."""

    def __init__(self, layout: Layout, loss: Callable[[Tensor], Tensor]) -> None:
        """loss: (d,) → (), in operations that `torch.func.vmap` can batch."""
        self.layout, self.loss = layout, loss
        self.num_samples = 1
        self.device = torch.device("cpu")

    def batch(self, indices: Tensor) -> Batch:
        return {"index": indices}

    def per_sample_loss(self, w: Tensor, batch: Batch) -> Tensor:
        return self.loss(w).expand(batch["index"].shape)


def closed_form(loss: Callable[[Any], Any], dimension: int) -> OneSample:
    """loss: (d,) → ()."""
    return OneSample(Layout({"w": (dimension,)}), loss)


def whole(objective: Objective) -> OneSample:
    """The loss on the whole data set as an objective of one sample, in double precision: w is (d,) float64."""
    batch = {
        name: array.double() if array.is_floating_point() else array
        for name, array in objective.batch(torch.arange(objective.num_samples)).items()
    }
    return OneSample(objective.layout, lambda w: objective.per_sample_loss(w, batch).mean())


def moments(objective: ModelObjective) -> OneSample:
    """The same of a deep linear network with the loss ½‖y − f‖², up to a constant, from second moments.

    The data have to have full rank.
    """
    data = objective.batch(torch.arange(objective.num_samples))
    x, y = data["x"].double(), data["y"].double()
    factor = torch.linalg.cholesky(x.mT @ x / len(x))
    best = torch.linalg.lstsq(x, y).solution.mT

    def loss(w: Tensor) -> Tensor:
        product, *layers = objective.layout.unflatten(w).values()
        for layer in layers:
            product = layer @ product
        return ((product - best) @ factor).square().sum() / 2

    return OneSample(objective.layout, loss)
