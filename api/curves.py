"""/v1/series/{id}/curve: what a series' newest job, or a given one, measured."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.dependencies import Reader, Shared
from api.fields import MAX_STEP, Estimate, Name
from api.of_series import JobId, chosen_job
from api.problems import RESPONSES
from api.reads import ReadRoute
from llc.errors import InputError
from store.results import curve_points
from store.results import metrics as posted
from store.tables import Job

router = APIRouter(prefix="/v1/series/{series_id}", tags=["curves"], responses=RESPONSES, route_class=ReadRoute)

QueryStep = Annotated[int | None, Query(ge=0, lt=MAX_STEP)]


EVERY_METRIC = "*"
Metrics = Mapping[int, Mapping[str, float]]
Format = Literal["json", "csv"]
MEDIA_TYPES: Mapping[Format, str] = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


class CurveValue(Estimate):
    """A quantity at a checkpoint, and whether to believe it."""

    verdict: str


Point = dict[str, int | str | CurveValue | dict[str, float]]

MAX_METRICS = 64


Metric = Annotated[
    list[Name] | None, Query(max_length=MAX_METRICS, description="Metrics posted with the checkpoints; '*': all.")
]


class Curve(BaseModel):
    """Quantities over training."""

    series: str
    job: str | None
    quantities: list[str]
    points: list[Point] = Field(
        description="By step: 'step', 'checkpoint', each quantity under its name, and 'metrics', if any were asked for."
    )


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
    metric: Metric = None,
    format: Format = "json",
) -> Response:
    """CSV has a column 'step', for each quantity q the columns q, q_std_error and q_verdict, and metrics.m of each
    metric m.
    """
    names = _names(measure)
    with shared.reading() as session:
        chosen = chosen_job(session, key.tenant_id, series_id, job)

        def read() -> bytes:
            found = as_json(session, series_id, chosen, metric, names, from_step, to_step)
            return _as_csv(found) if format == "csv" else found

        if chosen is not None and chosen.finished_at is not None:
            asked = chosen.id, chosen.finished_at, measure, from_step, to_step, tuple(metric or ()), format
            found = shared.kept.get(asked, read)
        else:
            found = read()
    return Response(found, media_type=MEDIA_TYPES[format])


def _names(measure: str | None) -> list[str] | None:
    if measure is None:
        return None
    names = [name for name in measure.split(",") if name]
    for name in names:
        if not name.isascii() or not name.isidentifier():
            raise InputError("unknown_measure", f"{name[:80]!r} names no measure", "for example: measure=llc,loss")
    return names or None


def chosen_metrics(session: Session, job: Job, asked: Sequence[str] | None) -> Metrics | None:
    """What is asked for of the metrics at a job's steps; None if nothing is. Raises: InputError `unknown_metric`."""
    if not asked:
        return None
    found = posted(session, job)
    known = sorted({name for values in found.values() for name in values})
    unknown = [name for name in asked if name not in (*known, EVERY_METRIC)]
    if unknown and found:
        hint = f"there are {', '.join(known)[:500]}" if known else "none was posted with them"
        raise InputError("unknown_metric", f"no checkpoint of this curve has a metric '{unknown[0][:80]}'", hint)
    names = known if EVERY_METRIC in asked else asked
    return {step: {name: values[name] for name in names if name in values} for step, values in found.items()}


def as_json(
    session: Session,
    series_id: str,
    job: Job | None,
    metric: Sequence[str] | None,
    names: Sequence[str] | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
) -> bytes:
    """A `Curve`. There may be tens of thousands of values, which the database has as JSON: nothing is made of them."""
    quantities, points = ([], []) if job is None else curve_points(session, job, names, from_step, to_step)
    metrics = None if job is None else chosen_metrics(session, job, metric)
    head = orjson.dumps({"series": series_id, "job": job and job.id, "quantities": quantities}).decode()
    written = ",".join(
        f'{{"step":{point.step},"checkpoint":"{point.checkpoint_id}"{point.values}{_beside(point.step, metrics)}}}'
        for point in points
    )
    return f'{head[:-1]},"points":[{written}]}}'.encode()


def _beside(step: int, metrics: Metrics | None) -> str:
    return "" if metrics is None else f',"metrics":{orjson.dumps(metrics.get(step, {})).decode()}'


def _as_csv(found: bytes) -> bytes:
    """What is written as JSON."""
    answer = orjson.loads(found)
    names, points = answer["quantities"], answer["points"]
    text = io.StringIO()
    metrics = list(dict.fromkeys(name for point in points for name in point.get("metrics", ())))
    writer = csv.writer(text, lineterminator="\n")
    quantities = (column for name in names for column in (name, f"{name}_std_error", f"{name}_verdict"))
    writer.writerow(["step", *quantities, *(f"metrics.{name}" for name in metrics)])
    for point in points:
        measured = [point.get(name) or {} for name in names]
        cells = (value.get(key) for value in measured for key in ("value", "std_error", "verdict"))
        writer.writerow([point["step"], *cells, *(point["metrics"].get(name) for name in metrics)])
    return text.getvalue().encode()
