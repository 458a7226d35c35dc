"""/v1/series/{id}/curve, /transitions, /stages: what a series' newest job, or a given one, found."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.dependencies import Reader, Shared
from api.fields import MAX_STEP, Estimate
from api.problems import RESPONSES
from api.reads import ReadRoute
from llc.errors import InputError
from store.errors import NotFoundError
from store.owned import find
from store.results import CurveRow, curve, newest_job_with_results, stages
from store.tables import Job, Series, Stage

router = APIRouter(prefix="/v1/series/{series_id}", tags=["curves"], responses=RESPONSES, route_class=ReadRoute)

JobId = Annotated[str | None, Query(description="Of this job; else of the newest that has results.")]
QueryStep = Annotated[int | None, Query(ge=0, lt=MAX_STEP)]


Format = Literal["json", "csv"]
MEDIA_TYPES: Mapping[Format, str] = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


class CurveValue(Estimate):
    """A quantity at a checkpoint, and whether to believe it."""

    verdict: str


Point = dict[str, int | str | CurveValue]


class Curve(BaseModel):
    """Quantities over training."""

    series: str
    job: str | None
    quantities: list[str]
    points: list[Point] = Field(description="By step: 'step', 'checkpoint', and each quantity under its name.")


class StageOut(BaseModel):
    """A transition or a plateau of the LLC curve."""

    id: str
    kind: Literal["transition", "plateau"]
    type: Literal["A", "B"] | None
    from_step: int
    to_step: int
    delta_loss: Estimate
    delta_llc: Estimate
    details: dict[str, Any]


class Stages(BaseModel):
    """How a curve falls into parts."""

    series: str
    job: str | None
    data: list[StageOut]


@router.get(
    "/curve",
    summary="The curve of a series",
    response_class=Response,
    responses={200: {"model": Curve, "content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def get_curve(
    series_id: str,
    key: Reader,
    shared: Shared,
    measure: Annotated[str | None, Query(max_length=1000, description="Measures or quantities, with commas.")] = None,
    job: JobId = None,
    from_step: QueryStep = None,
    to_step: QueryStep = None,
    format: Format = "json",
) -> Response:
    """CSV has a column 'step', and for each quantity q the columns q, q_std_error and q_verdict."""
    names = _names(measure)
    with shared.reading() as session:
        chosen = _job(session, key.tenant_id, series_id, job)

        def read() -> bytes:
            rows = [] if chosen is None else curve(session, chosen.id, names, from_step, to_step)
            return _written(series_id, chosen, rows, format)

        if chosen is not None and chosen.finished_at is not None:
            asked = chosen.id, chosen.finished_at, measure, from_step, to_step, format
            found = shared.curves.get(asked, read)
        else:
            found = read()
    return Response(found, media_type=MEDIA_TYPES[format])


@router.get("/transitions", summary="The transitions of a series, typed A or B")
def get_transitions(series_id: str, key: Reader, shared: Shared, job: JobId = None) -> Stages:
    found = get_stages(series_id, key, shared, job)
    return found.model_copy(update={"data": [stage for stage in found.data if stage.kind == "transition"]})


@router.get("/stages", summary="The plateaus and transitions of a series")
def get_stages(series_id: str, key: Reader, shared: Shared, job: JobId = None) -> Stages:
    with shared.reading() as session:
        chosen = _job(session, key.tenant_id, series_id, job)
        rows = [] if chosen is None else stages(session, chosen.id)
    return Stages(series=series_id, job=chosen and chosen.id, data=[_stage(row) for row in rows])


def _job(session: Session, tenant_id: str, series_id: str, job_id: str | None) -> Job | None:
    """The job asked for, or the newest of the series that has results. Raises: NotFoundError."""
    series = find(session, Series, tenant_id, series_id)
    if job_id is None:
        return newest_job_with_results(session, series.id)
    job = find(session, Job, tenant_id, job_id)
    if job.series_id != series.id:
        raise NotFoundError(f"job of series '{series.id}' called", job_id, f"it is a job of series '{job.series_id}'")
    return job


def _names(measure: str | None) -> list[str] | None:
    if measure is None:
        return None
    names = [name for name in measure.split(",") if name]
    for name in names:
        if not name.isascii() or not name.isidentifier():
            raise InputError("unknown_measure", f"{name[:80]!r} names no measure", "for example: measure=llc,loss")
    return names or None


def _written(series_id: str, job: Job | None, rows: Sequence[CurveRow], format: Format) -> bytes:
    points = _points(rows)
    if format == "csv":
        return _as_csv(points).encode()
    found = {"series": series_id, "job": job and job.id, "quantities": _quantities(points), "points": points}
    return orjson.dumps(found)


def _points(rows: Sequence[CurveRow]) -> list[dict[str, Any]]:
    """Those of `Curve`. There may be tens of thousands of values: they are not made models of."""
    points: dict[int, dict[str, Any]] = {}
    for step, checkpoint, _, verdict, quantities in rows:
        point = points.get(step)
        if point is None:
            point = points[step] = {"step": step, "checkpoint": checkpoint}
        for name, found in sorted(quantities.items()) if len(quantities) > 1 else quantities.items():
            own = found.get("verdict", verdict)
            point[name] = {"value": found["value"], "std_error": found["std_error"], "verdict": own}
    return list(points.values())


def _quantities(points: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for point in points for name in point)
    return [name for name in names if name not in ("step", "checkpoint")]


def _as_csv(points: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    names = _quantities(points)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *(column for name in names for column in (name, f"{name}_std_error", f"{name}_verdict"))])
    for point in points:
        found = [point.get(name) or {} for name in names]
        cells = (value.get(key) for value in found for key in ("value", "std_error", "verdict"))
        writer.writerow([point["step"], *cells])
    return text.getvalue()


def _stage(row: Stage) -> StageOut:
    return StageOut.model_validate(
        {
            "id": row.id,
            "kind": row.kind,
            "type": row.type,
            "from_step": row.from_step,
            "to_step": row.to_step,
            "delta_loss": {"value": row.delta_loss, "std_error": row.delta_loss_std_error},
            "delta_llc": {"value": row.delta_llc, "std_error": row.delta_llc_std_error},
            "details": row.details,
        }
    )
