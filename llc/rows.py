"""The rows of a sampling run: checkpoints × settings, every setting a column.

A row walks in coordinates u about its anchor, `w = w* + s∘u`, in which its tether is `(γ/2)‖u‖²`. The scales s do three
things at once: 1 everywhere is the plain tether; 0 holds a parameter at its anchor (the weight-refined LLC of Wang et
al., arXiv 2410.02984); and the size of each tensor of w* makes tether and steps, and so λ̂, invariant when layers are
rescaled without a change of the function.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llc.layout import Layout
from llc.patterns import matching
from llc.settings import LLCSettings


@dataclass(frozen=True)
class Rows:
    """What the chains of a run are started with; (rows, ...) each, float32 unless it says otherwise."""

    anchors: Tensor
    """(rows, d): w*."""
    baselines: Tensor
    """(rows, n): per-sample losses at the anchors."""
    epsilon: Tensor
    """(rows,)."""
    gamma: Tensor
    """(rows,)."""
    nbeta: Tensor
    """(rows,)."""
    batch_size: Tensor
    """(rows,) integers; a row takes the first so many samples of the chain's minibatch."""
    scales: Tensor | None = None
    """(rows, d): s; None: 1 everywhere."""

    def __len__(self) -> int:
        return len(self.anchors)

    def num_free(self) -> Tensor:
        """(rows,): parameters that are not held."""
        if self.scales is None:
            return torch.full_like(self.epsilon, self.anchors.shape[1])
        return (self.scales != 0).sum(-1).to(self.epsilon)


def rows_of(
    anchors: Tensor, baselines: Tensor, settings: LLCSettings, layout: Layout, free: Tensor | None = None
) -> Rows:
    """One row for each anchor (rows, d), all with the same settings. baselines: (rows, n), per-sample losses there;
    free: (d,) booleans, the parameters that move.
    """
    scales = tensor_scales(anchors, layout) if settings.tether == "tensors" else None
    if free is not None:
        scales = (torch.ones_like(anchors) if scales is None else scales) * free.to(anchors)

    def column(value: float) -> Tensor:
        return anchors.new_full((len(anchors),), value)

    return Rows(
        anchors=anchors,
        baselines=baselines,
        epsilon=column(settings.sampler.epsilon),
        gamma=column(settings.gamma),
        nbeta=column(settings.nbeta_for(baselines.shape[1])),
        batch_size=column(settings.batch_size).long(),
        scales=scales,
    )


def concatenate(parts: Sequence[Rows]) -> Rows:
    """One run of several."""
    scaled = any(part.scales is not None for part in parts)

    def column(part: Rows, name: str) -> Tensor:
        if name == "scales" and scaled and part.scales is None:
            return torch.ones_like(part.anchors)
        return getattr(part, name)

    names = [name for name in vars(parts[0]) if name != "scales" or scaled]
    return Rows(**{name: torch.cat([column(part, name) for part in parts]) for name in names})


def tensor_scales(anchors: Tensor, layout: Layout) -> Tensor:
    """(rows, d): for each parameter the root mean square, at the anchor, of the tensor that it is part of.

    A tensor of zeros, which has no size of its own, takes that of all parameters.
    """
    overall = anchors.square().mean(-1, keepdim=True).sqrt().clamp(min=torch.finfo(anchors.dtype).tiny)
    scales = torch.empty_like(anchors)
    for _, where, _ in layout.blocks():
        size = anchors[:, where].square().mean(-1, keepdim=True).sqrt()
        scales[:, where] = torch.where(size > 0, size, overall)
    return scales


def free_mask(layout: Layout, patterns: Sequence[str]) -> Tensor:
    """(d,) booleans: the parameters that a weight-refined LLC leaves free, as `llc.patterns` chooses them.

    Raises: InputError, as `llc.patterns.matching`.
    """
    mask = torch.zeros(layout.num_parameters, dtype=torch.bool)
    views = layout.unflatten(mask)
    for name, slices in matching(layout, patterns):
        views[name][slices] = True
    return mask
