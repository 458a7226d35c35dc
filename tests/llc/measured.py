"""One checkpoint through the measure of the LLC, and what counts as agreement with the truth."""

from collections.abc import Mapping

import torch
from numpy.typing import ArrayLike

from llc.evaluate import NO_OTHERS, evaluate
from llc.measures import Measurement, Quantity
from llc.objective import Objective
from llc.settings import LLCSettings, MeasureSettings


def measured(
    objective: Objective, w: ArrayLike, settings: LLCSettings, others: Mapping[str, Objective] | None = None
) -> Measurement:
    """What the measure finds at w (d,)."""
    anchors = torch.as_tensor(w, dtype=torch.float32)[None]
    chosen = MeasureSettings(loss=None, llc=settings)
    return evaluate(objective, anchors, chosen, others=others or NO_OTHERS)[0]["llc"]


def accepts(found: Quantity, truth: float, power: float) -> bool:
    """Power first (error bar at most `power` times the truth), then the truth within three error bars."""
    return found.std_error <= power * abs(truth) and abs(found.value - truth) <= 3 * found.std_error
