"""/v1/series: the checkpoints of one training run, with their model and data."""

from collections.abc import Sequence
from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.dependencies import Reader, Shared, Writer
from api.fields import Body, Id, KeptTags, Name, Tags, Timestamp
from api.once import Once
from api.paging import ID, After, Limit, Page, page, position
from api.problems import RESPONSES
from api.reads import ReadRoute
from store.owned import find, newest
from store.series import create_series, delete_series, extents
from store.tables import Series

router = APIRouter(prefix="/v1/series", tags=["series"], responses=RESPONSES, route_class=ReadRoute)

_EXAMPLE = {
    "name": "addition mod 53, seed 0",
    "model": "mdl_0192f0c1b7a87c3e9d0f1a2b3c4d5e6f",
    "dataset": "dst_0192f0c1b7a87c3e9d0f1a2b3c4d5e6f",
    "tags": {"optimizer": "adamw", "weight_decay": 1.0},
}


class NewSeries(Body):
    """A series: the model is checked against the data set."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})
    name: Name
    model: Id
    dataset: Id
    tags: Tags = Field(default_factory=dict)


class SeriesChange(Body):
    """What to change; what is left out or null stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "addition mod 53, the good one"}]})
    name: Name | None = None
    tags: Tags | None = Field(None, description="Replaces all tags.")


class SeriesOut(BaseModel):
    """A series and how far it goes."""

    id: str
    name: str
    model: str
    dataset: str
    tags: KeptTags
    num_checkpoints: int
    first_step: int | None
    last_step: int | None
    created_at: Timestamp


def _show(session: Session, rows: Sequence[Series]) -> list[SeriesOut]:
    found = extents(session, [row.id for row in rows])
    return [
        SeriesOut(
            id=row.id,
            name=row.name,
            model=row.model_id,
            dataset=row.dataset_id,
            tags=row.tags,
            created_at=row.created_at,
            **asdict(found[row.id]),
        )
        for row in rows
    ]


@router.post("", summary="Start a series", status_code=201)
def post_series(body: NewSeries, once: Once) -> SeriesOut:
    def create(session: Session) -> SeriesOut:
        series = create_series(session, once.tenant_id, body.name, body.model, body.dataset, body.tags)
        return _show(session, [series])[0]

    return once(create)


@router.get("", summary="List series, newest first")
def list_series(key: Reader, shared: Shared, limit: Limit = 50, after: After = None) -> Page[SeriesOut]:
    with shared.reading() as session:
        rows = newest(session, Series, key.tenant_id, position(after, ID), limit + 1)
        return page(rows, limit, lambda row: row.id, lambda shown: _show(session, shown))


@router.get("/{series_id}", summary="Get a series")
def get_series(series_id: str, key: Reader, shared: Shared) -> SeriesOut:
    with shared.reading() as session:
        return _show(session, [find(session, Series, key.tenant_id, series_id)])[0]


@router.patch("/{series_id}", summary="Rename or tag a series")
def patch_series(series_id: str, body: SeriesChange, key: Writer, shared: Shared) -> SeriesOut:
    with shared.session() as session:
        series = find(session, Series, key.tenant_id, series_id, lock="delete")
        if body.name is not None:
            series.name = body.name
        if body.tags is not None:
            series.tags = body.tags
        session.flush()
        return _show(session, [series])[0]


@router.delete("/{series_id}", summary="Delete a series with its checkpoints, jobs and results", status_code=204)
def delete(series_id: str, key: Writer, shared: Shared) -> None:
    with shared.session() as session:
        delete_series(session, key.tenant_id, series_id)
