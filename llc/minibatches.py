"""What the chains see of the data in each step: every chain its own samples, drawn with replacement, for all rows.

An epoch without replacement biases the minibatch loss, and chains that share batches give too small an error bar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llc.objective import Batch, Objective
from llc.randomness import CommonDraws
from llc.rows import Rows
from llc.settings import LLCSettings

MINIBATCHES_AT_ONCE = 32
"""Whose baselines are looked up together, which takes one call in place of many."""


@dataclass(frozen=True)
class Minibatch:
    """What the chains see in one step."""

    batch: Batch
    """(chains, batch, ...)."""
    indices: Tensor | None
    """(chains, batch) of the samples; None: the whole data set."""
    weights: Tensor | None
    """(rows, batch) in each row's mean; None: plain mean."""


class Minibatches:
    """Each chain's own minibatches, or the whole data set where that is asked for."""

    def __init__(self, objective: Objective, rows: Rows, settings: LLCSettings, full: bool) -> None:
        self._objective, self._baselines, self._chains = objective, rows.baselines, settings.num_chains
        sizes = rows.batch_size.clamp(max=objective.num_samples)
        largest = int(sizes.max())
        self.full = full or bool((rows.batch_size >= objective.num_samples).all())
        self.common = CommonDraws(
            settings.seed, settings.num_chains, objective.layout.num_parameters, objective.num_samples, largest
        )
        self._weights = None
        if not self.full and int(sizes.min()) < largest:
            self._weights = (torch.arange(largest) < sizes.cpu()[:, None]) / sizes.cpu()[:, None]
            self._weights = self._weights.to(rows.baselines)
        self._whole = self._take_all() if self.full else None

    def at(self, step: int) -> Minibatch:
        return self._whole or self._take(self.common.minibatches(step))

    def second(self, step: int) -> Minibatch:
        """An independent one."""
        return self._take(self.common.second_minibatches(step))

    def baselines(self, indices: Sequence[Tensor | None]) -> Tensor:
        """(minibatches, chains, rows): mean losses at the anchors of the minibatches with these indices."""
        if self.full:
            return self._baselines.mean(-1).expand(len(indices), self._chains, -1)
        losses = self._baselines[:, torch.stack([each for each in indices if each is not None])]
        weights = self._weights
        means = losses.mean(-1) if weights is None else (losses * weights[:, None, None]).sum(-1)
        return means.movedim(0, -1)

    def _take(self, numbers: NDArray[np.int64]) -> Minibatch:
        indices = torch.from_numpy(numbers).to(self._baselines.device)
        return Minibatch(self._objective.batch(indices), indices, self._weights)

    def _take_all(self) -> Minibatch:
        batch = self._objective.batch(torch.arange(self._objective.num_samples, device=self._baselines.device))
        batch = {name: array.expand(self._chains, *array.shape) for name, array in batch.items()}
        return Minibatch(batch, None, None)
