"""The published stages of two runs [arXiv 2402.02364], and curves rebuilt to have those levels at those steps."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from llc.smoothing import Floats
from llc.stages import Curve, Stage


class Published(NamedTuple):
    """A stage: the step it ends at, its changes and type."""

    stop: int
    delta_loss: float
    delta_llc: float
    type: str


LANGUAGE_MODEL = (
    Published(900, -2.33, 26.4, "A"),
    Published(6_500, -1.22, 22.5, "A"),
    Published(8_500, -0.18, -1.57, "B"),
    Published(17_000, -0.40, 8.62, "A"),
    Published(50_000, -0.34, 1.77, "A"),
)
LINEAR_REGRESSION = (
    Published(1_000, -0.32, 21.4, "A"),
    Published(40_000, -2.21, 149.0, "A"),
    Published(126_000, -0.07, -12.3, "B"),
    Published(320_000, -0.05, -44.1, "B"),
    Published(500_000, -0.029, 3.56, "A"),
)

FIRST_STEP = 20
NUM_LOG, NUM_LINEAR = 100, 250
"""Checkpoints: logarithmic, then linear, as those runs kept them."""


def drawn(steps: Sequence[int], knots: Sequence[tuple[float, float]]) -> Floats:
    """A curve through (step, value), flat at each and smooth in log(step + 1) between."""
    x = np.log1p(np.asarray(steps))
    y = np.full(len(x), knots[0][1], dtype=np.float64)
    for (start, old), (stop, new) in pairwise(knots):
        t = np.clip((x - np.log1p(start)) / (np.log1p(stop) - np.log1p(start)), 0, 1)
        y += (new - old) * t * t * (3 - 2 * t)
    return y


def rebuilt(stages: Sequence[Published], std_error: float, seed: int) -> Curve:
    """A curve that is level where the published stages end; its LLC starts at 20, its loss at 10."""
    last = stages[-1].stop
    log, linear = np.geomspace(1, last, NUM_LOG).round(), np.linspace(0, last, NUM_LINEAR).round()
    steps = np.unique(np.concatenate([[0], log, linear])).astype(int).tolist()
    ends = [FIRST_STEP, *(stage.stop for stage in stages)]
    llc = drawn(steps, list(zip(ends, np.cumsum([20.0, *(stage.delta_llc for stage in stages)]), strict=True)))
    loss = drawn(steps, list(zip(ends, np.cumsum([10.0, *(stage.delta_loss for stage in stages)]), strict=True)))
    noise = std_error * np.random.default_rng(seed).standard_normal(len(steps))
    n = len(steps)
    return Curve.of(steps, (llc + noise).tolist(), [std_error] * n, loss.tolist(), [2e-3] * n)


def is_found(published: Sequence[Published], ordinal: int, stages: Sequence[Stage]) -> bool:
    """Whether a transition of the type and within a fifth of the ΔLLC lies in the published stage's steps."""
    start = published[ordinal - 1].stop if ordinal else 0
    wanted = published[ordinal]
    return any(
        stage.kind == "transition"
        and stage.type == wanted.type
        and abs(stage.delta_llc - wanted.delta_llc) < 0.2 * abs(wanted.delta_llc)
        and math.log((stage.from_step + 1) / (start + 1)) > -0.2
        and math.log((stage.to_step + 1) / (wanted.stop + 1)) < 0.2
        for stage in stages
    )
