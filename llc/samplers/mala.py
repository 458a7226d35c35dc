"""The Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996), on the loss of the whole data set:

propose `u' = u − (ε/2) F(u) + √ε R`, accept with probability `min(1, e^{U(u) − U(u')} q(u | u') / q(u' | u))`,

`log q(b | a) = −‖b − a + (ε/2) F(a)‖² / 2ε`, U = nβ L_n + (γ/2)‖u‖². Without step-size bias:
the reference for small problems.
"""

import dataclasses

import torch
from torch import Tensor

from llc.samplers.base import Columns, Kernel, Point, State
from llc.settings import MALASettings


class MALA(Kernel):
    """State: the last accepted point and `accepted`, the number of proposals accepted (chains, rows)."""

    settings: MALASettings
    full_data = True

    def settle(self, point: Point, state: State, uniforms: Tensor, columns: Columns) -> Point:
        if not state:
            state["accepted"] = torch.zeros_like(point.losses)
            accepted = point
        else:
            last = Point(*(state[field] for field in _FIELDS))
            log_ratio = (
                _energy(last, columns)
                - _energy(point, columns)
                + _log_density(last.u, point, columns)
                - _log_density(point.u, last, columns)
            )
            accept = uniforms.log() < log_ratio  # not where the ratio is NaN
            state["accepted"] = state["accepted"] + accept
            accepted = Point(*(_choose(accept, getattr(point, f), getattr(last, f)) for f in _FIELDS))
        state.update({field: getattr(accepted, field) for field in _FIELDS})
        return accepted

    def step(self, point: Point, state: State, noise: Tensor, columns: Columns) -> Tensor:
        return point.u - columns.epsilon / 2 * point.forces + columns.epsilon.sqrt() * noise


_FIELDS = tuple(field.name for field in dataclasses.fields(Point) if field.name != "curvatures")


def _energy(point: Point, columns: Columns) -> Tensor:
    """U, (chains, rows)."""
    return columns.nbeta[:, 0] * point.losses + columns.gamma[:, 0] / 2 * point.u.square().sum(-1)


def _log_density(b: Tensor, a: Point, columns: Columns) -> Tensor:
    """log q(b | a) up to a constant, (chains, rows)."""
    residual = b - a.u + columns.epsilon / 2 * a.forces
    return -residual.square().sum(-1) / (2 * columns.epsilon[:, 0])


def _choose(accept: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(accept.reshape(accept.shape + (1,) * (new.ndim - accept.ndim)), new, old)
