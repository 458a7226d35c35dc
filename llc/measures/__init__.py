"""What a checkpoint can be asked: one file a measure, each a function (series, its settings) → one result a checkpoint.

A new measure is a file here, its settings in `llc.settings.MeasureSettings`, and a line below.
"""

from collections.abc import Callable, Mapping
from typing import Any

from llc.measures import hessian, llc, loss
from llc.measures.base import CheckpointSeries, Measurement, Quantity

MEASURES: Mapping[str, Callable[[CheckpointSeries, Any], list[Measurement]]] = {
    "loss": loss.measure,
    "llc": llc.measure,
    "hessian": hessian.measure,
}

__all__ = ["MEASURES", "CheckpointSeries", "Measurement", "Quantity"]
