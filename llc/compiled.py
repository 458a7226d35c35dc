"""Minibatch gradients as a plan has them: as they are, or compiled.

To compile, what `minibatch_gradients` does for given shapes is recorded as a graph of tensor operations (`make_fx`),
which has neither the mapping over rows nor the backward pass' bookkeeping in it, and `torch.compile` fuses that. It
takes a C++ compiler and up to a minute for every new set of shapes, and pays where rows are small.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from llc.ensemble import PLAIN, Gradients, Plan, Terms, all_at_once, alone, minibatch_gradients, one_by_one
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

    def __call__(self, w: Tensor, batch: Batch, terms: Terms = PLAIN) -> Gradients:
        """As `minibatch_gradients`. Raises: RuntimeError if it can't be compiled."""
        vectorised = self._plan.vectorised
        if not self._plan.compiled:
            return minibatch_gradients(self._objective, w, batch, terms, vectorised=vectorised)
        if vectorised:
            return self._compiled(w, batch, terms)
        return one_by_one(self._compiled, w, batch, terms)

    def _compiled(self, w: Tensor, batch: Batch, terms: Terms) -> Gradients:
        given = {name: term for name, term in vars(terms).items() if term is not None}
        arguments = [w, *batch.values(), *given.values()]
        key = (*given, *((argument.shape, argument.stride()) for argument in arguments))  # a graph is for these
        if key not in self._calls:
            self._calls[key] = self._compile(arguments, list(batch), list(given))
        with torch.no_grad():
            return Gradients(*self._calls[key](*arguments))

    def _compile(self, arguments: list[Tensor], batch_names: list[str], term_names: list[str]) -> Call:
        differentiate = all_at_once if self._plan.vectorised else alone

        def call(w: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            rest = iter(others)
            batch = {name: next(rest) for name in batch_names}
            terms = Terms(**{name: next(rest) for name in term_names})
            found = differentiate(self._objective, w, batch, terms)
            return tuple(part for part in vars(found).values() if part is not None)

        # Here, for it takes seconds, and most never need it.
        import torch._inductor
        from torch.fx.experimental.proxy_tensor import make_fx

        graph = make_fx(call, decomposition_table={torch.ops.aten.bmm.default: _product})(*arguments)
        with torch.no_grad():
            # Not `torch.compile`, which would trace the graph again and compare all its inputs in every call.
            return cast(Call, torch._inductor.compile(graph, [*arguments], options=ONE_THREAD))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """(pairs, n, k), (pairs, k, m) → (pairs, n, m). The library takes a microsecond for the smallest matrices, too."""
    if a.shape[1] * b.shape[1] * b.shape[2] > SMALL_PRODUCT:
        return NotImplemented
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)
