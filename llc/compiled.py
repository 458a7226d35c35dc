"""Minibatch gradients as a plan has them: as they are, or compiled.

To compile, what `minibatch_gradients` does for given shapes is recorded as a graph of tensor operations (`make_fx`),
which has neither the mapping over rows nor the backward pass' bookkeeping in it, and `torch.compile` fuses that. It
takes a C++ compiler and up to a minute for every new set of shapes, and pays where rows are small.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch._inductor
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from llc.ensemble import Gradients, Plan, all_at_once, alone, minibatch_gradients, one_by_one
from llc.objective import Batch, Objective

Call = Callable[..., tuple[Tensor, ...]]

SMALL_PRODUCT = 4096
"""Multiplications of a product of matrices that is fused with what is around it."""

ONE_THREAD: dict[str, str | int | bool | Callable[..., object]] = {"cpp.threads": 1, "compile_threads": 1}


class MinibatchGradients:
    """`minibatch_gradients` of one objective."""

    def __init__(self, objective: Objective, plan: Plan) -> None:
        self._objective, self._plan = objective, plan
        self._calls: dict[object, Call] = {}

    def __call__(
        self,
        w: Tensor,
        batch: Batch,
        weights: Tensor | None = None,
        factors: Tensor | None = None,
        probe: Tensor | None = None,
    ) -> Gradients:
        """As `minibatch_gradients`. Raises: RuntimeError if it can't be compiled."""
        vectorised = self._plan.vectorised
        if not self._plan.compiled:
            return minibatch_gradients(self._objective, w, batch, weights, factors, probe, vectorised=vectorised)
        if vectorised:
            return self._compiled(w, batch, weights, factors, probe)
        return one_by_one(self._compiled, w, batch, weights, factors, probe)

    def _compiled(
        self, w: Tensor, batch: Batch, weights: Tensor | None, factors: Tensor | None, probe: Tensor | None
    ) -> Gradients:
        arguments = [w, *batch.values(), *(each for each in (weights, factors, probe) if each is not None)]
        layouts = [(argument.shape, argument.stride()) for argument in arguments]  # a graph is for both
        key = (*layouts, weights is None, factors is None, probe is None)
        if key not in self._calls:
            self._calls[key] = self._compile(arguments, list(batch), weights is None, factors is None, probe is None)
        with torch.no_grad():
            return Gradients(*self._calls[key](*arguments))

    def _compile(self, arguments: list[Tensor], names: list[str], *left_out: bool) -> Call:
        differentiate = all_at_once if self._plan.vectorised else alone

        def call(w: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            rest = iter(others)
            batch = {name: next(rest) for name in names}
            found = differentiate(self._objective, w, batch, *(None if out else next(rest) for out in left_out))
            parts = (found.losses, found.gradients, found.curvatures)
            return tuple(part for part in parts if part is not None)

        graph = make_fx(call, decomposition_table={torch.ops.aten.bmm.default: _product})(*arguments)
        with torch.no_grad():
            # Not `torch.compile`, which would trace the graph again and compare all its inputs in every call.
            return cast(Call, torch._inductor.compile(graph, [*arguments], options=ONE_THREAD))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """(pairs, n, k), (pairs, k, m) → (pairs, n, m). The library takes a microsecond for the smallest matrices, too."""
    if a.shape[1] * b.shape[1] * b.shape[2] > SMALL_PRODUCT:
        return NotImplemented
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)
