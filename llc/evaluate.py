"""A series of checkpoints in, everything asked about each of them out."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from llc.calibration import calibrate
from llc.ensemble import PLAN, Plan, per_sample_losses
from llc.measures import MEASURES, CheckpointSeries, Measurement
from llc.objective import Objective
from llc.progress import NO_PROGRESS, Progress
from llc.settings import AutoLLCSettings, MeasureSettings

NO_OTHERS: Mapping[str, Objective] = MappingProxyType({})


def evaluate(
    objective: Objective,
    anchors: Tensor,
    settings: MeasureSettings,
    progress: Progress = NO_PROGRESS,
    others: Mapping[str, Objective] = NO_OTHERS,
    plan: Plan = PLAN,
) -> list[dict[str, Measurement]]:
    """Every measure asked for at every checkpoint: for each row of anchors (checkpoints, d), {measure: measurement}.

    others: the same model on other data sets by their ids, as far as the settings name any; plan: of
    `llc.planning.choose_plan`, if it is to be fast.

    Where a pilot is to choose the settings of the LLC, some of these checkpoints are the pilot.
    """
    if isinstance(settings.llc, AutoLLCSettings):
        settings, _ = calibrated(objective, anchors[settings.llc.pilot(len(anchors))], settings, progress, plan)
    losses = per_sample_losses(objective, anchors, plan=plan)
    series = CheckpointSeries(objective, anchors, losses, progress, others, plan)
    found = {name: MEASURES[name](series, chosen) for name, chosen in settings.chosen().items()}
    return [{name: rows[checkpoint] for name, rows in found.items()} for checkpoint in range(len(anchors))]


def calibrated(
    objective: Objective,
    anchors: Tensor,
    settings: MeasureSettings,
    progress: Progress = NO_PROGRESS,
    plan: Plan = PLAN,
) -> tuple[MeasureSettings, dict[str, Any]]:
    """The settings with those that a pilot on these anchors (checkpoints, d) chooses for the LLC, and its report."""
    if not isinstance(settings.llc, AutoLLCSettings):
        return settings, {}
    losses = per_sample_losses(objective, anchors, plan=plan)
    found = calibrate(objective, anchors, losses, settings.llc, plan, progress)
    return settings.model_copy(update={"llc": found.settings}), found.report()
