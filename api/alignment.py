"""/v1/alignment: the transitions of several series, seeds say, beside each other."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from api.compare import MAX_NUMBER
from api.dependencies import Reader, Shared
from api.fields import Estimate, Id
from api.problems import RESPONSES
from api.reads import ReadRoute
from api.tags import TagQuery, parsed
from llc.alignment import Common, align
from llc.differences import Run
from llc.errors import InputError
from llc.matching import Axis, Transition
from store import runs as store

router = APIRouter(tags=["stages"], responses=RESPONSES, route_class=ReadRoute)

MAX_SERIES = 100
MAX_TRANSITIONS = 50
"""Of a series: what takes a tenth of a second with the usual ten would take seconds, and memory."""


class AlignedTransition(BaseModel):
    """A transition of a run. What it is in more detail, GET /v1/series/{id}/transitions says."""

    id: str
    type: Literal["A", "B"] | None
    from_step: int
    to_step: int
    from_loss: float | None = Field(description="The loss where it starts; null unless the axis is the loss.")
    to_loss: float | None = Field(description="The loss where it ends; null unless the axis is the loss.")
    delta_llc: Estimate
    delta_loss: Estimate


class AlignedRun(Run):
    """A series beside the common sequence."""

    series: str
    series_name: str
    job: str = Field(description="The newest that has read the stages of the series.")
    transitions: list[AlignedTransition] = Field(description="In the order of training.")


class AlignmentOut(BaseModel):
    """What series have in common, and how each differs from it."""

    axis: Axis
    common: list[Common] = Field(description="Transitions that at least half of the runs have, in their order.")
    runs: list[AlignedRun] = Field(description="Oldest series first.")
    without_stages: list[str] = Field(description="Series of which no job has read the stages: they are no runs.")
    without_loss: list[str] = Field(
        description="Where the axis is the loss, series of which it isn't known at every end of a transition: no runs."
    )


SeriesQuery = Annotated[list[Id] | None, Query(description="A series; several: all of them.")]
AxisQuery = Annotated[
    Axis, Query(description="Compare where transitions are by log(step + 1), or by the loss at their ends.")
]


@router.get(
    "/v1/alignment",
    summary="The transitions that several series have in common, and outliers",
    response_model=AlignmentOut,
)
def get_alignment(
    key: Reader, shared: Shared, series: SeriesQuery = None, tag: TagQuery = None, axis: AxisQuery = "step"
) -> Response:
    """The series that are named, and those that have all of the tags: 2 to 100. Of each the transitions of the newest
    job that has read its stages.
    """
    return Response(alignment(key, shared, series, tag, axis), media_type="application/json")


def alignment(
    key: Reader, shared: Shared, series: Sequence[str] | None, tag: Sequence[str] | None, axis: Axis
) -> bytes:
    """The answer, kept by what the series' stages are."""
    tags = parsed(tag)
    with shared.reading() as session:
        found = store.runs(session, key.tenant_id, series or (), tags, MAX_SERIES)
        if len(found) < 2:
            raise InputError(
                "too_few_series",
                f"there is nothing to align: {len(found)} series",
                "name two or more: series=ser_…&series=ser_…, or a tag that they have: tag=experiment:seeds",
            )
        losses = store.losses(session, found) if axis == "loss" else {}
    read = hashlib.sha256(repr((found, losses)).encode()).digest()
    return shared.kept.get(("alignment", axis, read), lambda: _answer(found, losses, axis).model_dump_json().encode())


def _answer(found: Sequence[store.Run], losses: Mapping[str, store.Losses], axis: Axis) -> AlignmentOut:
    rows = {run.series_id: _transitions(run, losses) for run in found if run.job_id is not None}
    without_loss = [series for series, row in rows.items() if axis == "loss" and not all(map(_has_losses, row))]
    taken = [run for run in found if run.series_id in rows and run.series_id not in without_loss]
    aligned = align([[_given(row) for row in rows[run.series_id]] for run in taken], axis)
    return AlignmentOut(
        axis=axis,
        common=aligned.common,
        runs=[_run(run, rows[run.series_id], beside) for run, beside in zip(taken, aligned.runs, strict=True)],
        without_stages=[run.series_id for run in found if run.job_id is None],
        without_loss=without_loss,
    )


def _transitions(run: store.Run, losses: Mapping[str, store.Losses]) -> list[AlignedTransition]:
    """Of a run; without a ΔLLC it would be none."""
    usable = [stage for stage in run.transitions if 1 / MAX_NUMBER < abs(stage.delta_llc or 0.0) < MAX_NUMBER]
    if len(usable) > MAX_TRANSITIONS:
        raise InputError(
            "too_many_transitions",
            f"series '{run.series_id}' has {len(usable)} transitions; {MAX_TRANSITIONS} can be aligned",
            "leave it out, or run a job on it with a larger stages.min_share",
        )
    return [_transition(stage, *losses.get(stage.id, (None, None))) for stage in usable]


def _transition(stage: store.Transition, from_loss: float | None, to_loss: float | None) -> AlignedTransition:
    return AlignedTransition.model_validate(
        {
            "id": stage.id,
            "type": stage.type,
            "from_step": stage.from_step,
            "to_step": stage.to_step,
            "from_loss": from_loss,
            "to_loss": to_loss,
            "delta_llc": {"value": stage.delta_llc, "std_error": stage.delta_llc_std_error},
            "delta_loss": {"value": stage.delta_loss, "std_error": stage.delta_loss_std_error},
        }
    )


def _has_losses(row: AlignedTransition) -> bool:
    return all(loss is not None and abs(loss) < MAX_NUMBER for loss in (row.from_loss, row.to_loss))


def _given(row: AlignedTransition) -> Transition:
    return Transition(
        row.from_step,
        row.to_step,
        row.delta_llc.value or 0.0,
        row.delta_llc.std_error,
        row.delta_loss.value,
        row.type,
        row.from_loss,
        row.to_loss,
    )


def _run(run: store.Run, transitions: Sequence[AlignedTransition], beside: Run) -> AlignedRun:
    where: dict[str, Any] = {"series": run.series_id, "series_name": run.name, "job": run.job_id}
    return AlignedRun(**where, transitions=list(transitions), **dict(beside))
