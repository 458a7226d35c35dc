"""A series of checkpoints in, everything asked about each of them out."""

from collections.abc import Callable

from torch import Tensor

from llc.ensemble import per_sample_losses
from llc.measures import MEASURES, CheckpointSeries, Measurement
from llc.objective import Objective
from llc.settings import MeasureSettings


def evaluate(
    objective: Objective,
    anchors: Tensor,
    settings: MeasureSettings,
    report: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Measurement]]:
    """Every measure asked for at every checkpoint: for each row of anchors (checkpoints, d), {measure: measurement}."""
    series = CheckpointSeries(objective, anchors, per_sample_losses(objective, anchors), report)
    found = {name: MEASURES[name](series, chosen) for name, chosen in settings.chosen().items()}
    return [{name: rows[checkpoint] for name, rows in found.items()} for checkpoint in range(len(anchors))]
