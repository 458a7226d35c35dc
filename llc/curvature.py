"""The largest curvature of the loss, by power iteration with Hessian products on a part of the data.

Chains meet curvature that their anchors don't show (at a degenerate minimum these show nothing), so it is asked for
again and again where they are, and every search starts from the direction that the last one found.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llc.ensemble import HessianOperator, Plan
from llc.objective import Objective
from llc.randomness import Stream, generator

STEPS, MORE_STEPS = 12, 4
"""Of power iteration, at first and from a direction known."""

MINIBATCHES = 4
"""Of samples in a Hessian product."""


class Curvature:
    """The largest |eigenvalue| of the Hessian near some checkpoints, in the coordinates u of `llc.rows`."""

    def __init__(self, objective: Objective, scales: Tensor | None, batch_size: int, seed: int, plan: Plan) -> None:
        """scales: s of the checkpoints, (checkpoints, d); batch_size: of a minibatch, the unit of cost."""
        self._objective, self._scales, self._seed, self._plan = objective, scales, seed, plan
        self._batch_size = batch_size
        self._steepest: dict[int, Tensor] = {}
        self.gradients = 0
        """Minibatch gradients taken so far; a Hessian product counts for two."""

    def at(self, w: Tensor) -> float:
        """Of all rows of w (checkpoints, d); infinite where something is."""
        if not bool(w.isfinite().all()):
            return math.inf
        return max(self._of_checkpoint(row, one) for row, one in enumerate(w))

    def _of_checkpoint(self, row: int, w: Tensor) -> float:
        hessian = HessianOperator(self._objective, w, MINIBATCHES * self._batch_size, self._plan)
        scale = 1.0 if self._scales is None else self._scales[row]
        last = self._steepest.get(row)
        v = torch.from_numpy(random_signs(self._seed, 0, len(w))).to(w) / len(w) ** 0.5
        if last is not None:
            v += last
        steps = STEPS if last is None else MORE_STEPS
        self.gradients += 2 * steps * MINIBATCHES
        for _ in range(steps):
            v = v / v.norm()
            v = scale * hessian(scale * v)
            if not bool(v.norm() > 0):
                break
        norm = float(v.norm())
        if not math.isfinite(norm):
            return math.inf
        if norm > 0:
            self._steepest[row] = v / norm
        return norm


def random_signs(seed: int, stream: int, d: int) -> NDArray[np.float32]:
    """(d,) of −1 and 1, none of which a chain uses."""
    return generator(seed, Stream.SIGN, 2**32 + stream, 0).integers(0, 2, d).astype(np.float32) * 2 - 1
