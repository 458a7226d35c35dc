"""Stages as the API shows them: /v1/series/{id}/stages and /transitions, and /v1/transitions over all series."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, TypeAdapter

from api.dependencies import Reader, Shared
from api.fields import MAX_STEP, Estimate, Name
from api.of_series import JobId, chosen_job
from api.paging import After, CursorId, Limit, Page, page, position
from api.problems import RESPONSES
from api.reads import ReadRoute
from api.tags import TagQuery, parsed
from store.results import stages
from store.stages import Found, TransitionType, Wanted, transitions
from store.tables import Stage

router = APIRouter(tags=["stages"], responses=RESPONSES, route_class=ReadRoute)


class StageOut(BaseModel):
    """A transition or a plateau of the LLC curve."""

    id: str
    kind: Literal["transition", "plateau"]
    type: Literal["A", "B"] | None = Field(description="The type that is at least as likely as the job's settings ask.")
    from_step: int
    from_step_low: int | None = Field(description="… to from_step_high: its 90 % interval.")
    from_step_high: int | None
    to_step: int
    to_step_low: int | None = Field(description="… to to_step_high: its 90 % interval.")
    to_step_high: int | None
    probability_a: float | None = Field(description="That the loss falls and the LLC rises.")
    probability_b: float | None = Field(description="That the LLC falls and the loss changes only slightly.")
    probability_neither: float | None
    delta_loss: Estimate
    delta_llc: Estimate
    survival: float | None = Field(
        description="Of a transition: the share of the members of the job's ensemble (llc.stability) that have it, too."
    )
    details: dict[str, Any]


class Stages(BaseModel):
    """How a curve falls into parts."""

    series: str
    job: str | None
    data: list[StageOut]


class TransitionOut(StageOut):
    """A transition and where it is."""

    series: str
    series_name: str
    family: str = Field(description="Of the model.")
    job: str


_CURSOR = TypeAdapter(tuple[CursorId, Annotated[int, Field(ge=0, lt=2**31)]])


@router.get("/v1/series/{series_id}/transitions", summary="The transitions of a series, typed A or B")
def get_transitions(series_id: str, key: Reader, shared: Shared, job: JobId = None) -> Stages:
    found = get_stages(series_id, key, shared, job)
    return found.model_copy(update={"data": [stage for stage in found.data if stage.kind == "transition"]})


@router.get("/v1/series/{series_id}/stages", summary="The plateaus and transitions of a series")
def get_stages(series_id: str, key: Reader, shared: Shared, job: JobId = None) -> Stages:
    with shared.reading() as session:
        chosen = chosen_job(session, key.tenant_id, series_id, job)
        rows = [] if chosen is None else stages(session, chosen.id)
    return Stages(
        series=series_id, job=chosen and chosen.id, data=[StageOut.model_validate(shown(row)) for row in rows]
    )


@router.get("/v1/transitions", summary="The transitions of all series, newest first")
def list_transitions(
    key: Reader,
    shared: Shared,
    type: Annotated[
        TransitionType | None,
        Query(description="The type they have; with min_probability, the type that is so likely."),
    ] = None,
    min_probability: Annotated[
        float | None, Query(ge=0, le=1, description="Of this type; without one, of the likelier of A and B.")
    ] = None,
    from_step: Annotated[int | None, Query(ge=0, lt=MAX_STEP, description="They end here or later.")] = None,
    to_step: Annotated[int | None, Query(ge=0, lt=MAX_STEP, description="They start here or earlier.")] = None,
    min_delta_llc: Annotated[
        float | None, Query(ge=0, allow_inf_nan=False, description="The LLC rises or falls by so much or more.")
    ] = None,
    min_survival: Annotated[
        float | None, Query(ge=0, le=1, description="So large a share of an ensemble's members has them, too.")
    ] = None,
    family: Annotated[Name | None, Query(description="Of the model, such as transformer.")] = None,
    tag: TagQuery = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[TransitionOut]:
    """Of each series those of the newest job that has read its stages."""
    wanted = Wanted(type, min_probability, from_step, to_step, min_delta_llc, min_survival, family, parsed(tag))
    with shared.reading() as session:
        rows = transitions(session, key.tenant_id, wanted, position(after, _CURSOR), limit + 1)
    return page(
        rows, limit, lambda row: (row.stage.job_id, row.stage.ordinal), lambda some: [_transition(row) for row in some]
    )


def _transition(row: Found) -> TransitionOut:
    stage = row.stage
    where = {"series": stage.series_id, "series_name": row.series_name, "family": row.family, "job": stage.job_id}
    return TransitionOut.model_validate(shown(stage) | where)


def shown(row: Stage) -> dict[str, Any]:
    """A stage as it is answered."""
    alike = {name: getattr(row, name) for name in StageOut.model_fields if not name.startswith("delta_")}
    return alike | {
        "delta_loss": {"value": row.delta_loss, "std_error": row.delta_loss_std_error},
        "delta_llc": {"value": row.delta_llc, "std_error": row.delta_llc_std_error},
    }
