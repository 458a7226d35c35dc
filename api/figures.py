"""/v1/series/{id}/figure: the picture of a series, as `lambdahat plot` draws it."""

from typing import Any, Literal

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.curves import Metric, chosen_metrics, written
from api.dependencies import Reader, Shared
from api.of_series import JobId, chosen_job
from api.problems import RESPONSES
from api.reads import ReadRoute
from api.stages import shown
from llc.errors import InputError
from store.results import curve, stages
from store.tables import Job, Series

router = APIRouter(tags=["curves"], responses=RESPONSES, route_class=ReadRoute)

Kind = Literal["png", "svg"]
MEDIA_TYPES: dict[Kind, str] = {"png": "image/png", "svg": "image/svg+xml"}
PICTURE: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"content": {kind: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()}}},
}
"""What a route says that answers with one."""


@router.get(
    "/v1/series/{series_id}/figure", summary="The picture of a series: its curve with its transitions", **PICTURE
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
            found = shared.curves.get(asked, lambda: _picture(session, chosen, title, format, metric))
    return Response(found, media_type=MEDIA_TYPES[format])


def _picture(session: Session, job: Job, title: str, kind: Kind, metric: list[str] | None) -> bytes:
    """Of what is measured so far. Raises: InputError `nothing_to_draw`."""
    # They take a second to import, which only a picture is worth.
    from lambdahat.errors import LambdahatError
    from lambdahat.objects import Curve, Stage
    from lambdahat.plot import drawn_curve

    chosen = chosen_metrics(session, job, metric)
    rows = curve(session, job.id, None, None, None)
    points = Curve.model_validate_json(written(job.series_id, job, rows, "json", chosen))
    every = [Stage.model_validate(shown(stage)) for stage in stages(session, job.id) if stage.kind == "transition"]
    try:
        return drawn_curve(points, every, kind, title)
    except LambdahatError as error:
        raise InputError("nothing_to_draw", error.detail, "wait for the job's first results") from None
