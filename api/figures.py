"""Pictures as `lambdahat plot` and `lambdahat align` draw them: /v1/series/{id}/figure, /v1/alignment/figure."""

import hashlib
from typing import Any, Literal

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.alignment import AxisQuery, SeriesQuery, alignment
from api.curves import Metric, as_json
from api.dependencies import Reader, Shared
from api.of_series import JobId, chosen_job
from api.problems import RESPONSES
from api.reads import DrawRoute
from api.settled import load_drawing
from api.stages import shown
from api.tags import TagQuery
from llc.errors import InputError
from store.results import stages
from store.tables import Job, Series

router = APIRouter(responses=RESPONSES, route_class=DrawRoute)

Kind = Literal["png", "svg"]
MEDIA_TYPES: dict[Kind, str] = {"png": "image/png", "svg": "image/svg+xml"}
PICTURE: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"content": {kind: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()}}},
}
"""What a route says that answers with one."""
MAX_METRICS_DRAWN = 16
"""A panel each."""


@router.get(
    "/v1/series/{series_id}/figure",
    summary="The picture of a series: its curve with its transitions",
    tags=["curves"],
    **PICTURE,
)
def get_figure(
    series_id: str, key: Reader, shared: Shared, format: Kind = "png", job: JobId = None, metric: Metric = None
) -> Response:
    with shared.reading() as session:
        chosen = chosen_job(session, key.tenant_id, series_id, job)
        if chosen is None:
            raise InputError("nothing_to_draw", f"series '{series_id}' has no results yet", "POST /v1/jobs first")
        title = session.get_one(Series, series_id).name
        if chosen.finished_at is None:
            found = _picture(session, chosen, title, format, metric)
        else:
            asked = "figure", chosen.id, chosen.finished_at, title, format, tuple(metric or ())
            found = shared.kept.get(asked, lambda: _picture(session, chosen, title, format, metric))
    return Response(found, media_type=MEDIA_TYPES[format])


def _picture(session: Session, job: Job, title: str, kind: Kind, metric: list[str] | None) -> bytes:
    """Of what is measured so far. Raises: InputError `nothing_to_draw`."""
    load_drawing()
    from lambdahat.errors import LambdahatError
    from lambdahat.objects import Curve, Stage
    from lambdahat.plot import drawn_curve

    points = Curve.model_validate_json(as_json(session, job.series_id, job, metric))
    drawn = {name for point in points.points for name in point.metrics}
    if len(drawn) > MAX_METRICS_DRAWN:
        words = f"these are {len(drawn)} metrics; a picture has panels for {MAX_METRICS_DRAWN}"
        raise InputError("too_many_metrics", words, "name the ones to be drawn: metric=test_accuracy&metric=…")
    every = [Stage.model_validate(shown(stage)) for stage in stages(session, job.id) if stage.kind == "transition"]
    try:
        return drawn_curve(points, every, kind, title)
    except LambdahatError as error:
        raise InputError("nothing_to_draw", error.detail, "wait for the job's first results") from None


@router.get("/v1/alignment/figure", summary="The picture of an alignment: a row a series", tags=["stages"], **PICTURE)
def get_alignment_figure(
    key: Reader,
    shared: Shared,
    format: Kind = "png",
    series: SeriesQuery = None,
    tag: TagQuery = None,
    axis: AxisQuery = "step",
) -> Response:
    """What `GET /v1/alignment` answers, as `lambdahat align --output` draws it."""
    load_drawing()
    from lambdahat.aligned import Alignment
    from lambdahat.errors import LambdahatError
    from lambdahat.plot_alignment import drawn_alignment

    answer = alignment(key, shared, series, tag, axis)
    asked = "alignment figure", format, hashlib.sha256(answer).digest()
    try:
        found = shared.kept.get(asked, lambda: drawn_alignment(Alignment.model_validate_json(answer), format))
    except LambdahatError as error:
        raise InputError("nothing_to_draw", error.detail, "POST /v1/jobs first") from None
    return Response(found, media_type=MEDIA_TYPES[format])
