"""/v1/jobs: measures applied to a series."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.dependencies import Reader, Shared, State, Writer
from api.fields import Estimate, Id, Name, Step, Timestamp
from api.once import Once
from api.paging import ID, After, Limit, Page, page, position
from api.problems import RESPONSES
from api.reads import ReadRoute
from api.root_path import link
from api.streams import Message, stream
from llc.settings import JobSettings
from store import following, jobs, quotas
from store.owned import find, newest
from store.results import events, results
from store.tables import Job, Result, Series

log = structlog.get_logger()

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=RESPONSES, route_class=ReadRoute)

_EXAMPLE = {
    "series": "ser_0192f0c1b7a87c3e9d0f1a2b3c4d5e6f",
    "measures": {"loss": {}, "llc": {"gamma": 100.0, "num_chains": 4, "num_draws": 200}, "hessian": {}},
}

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]

EVENT_STREAM = "text/event-stream"
MAX_EVENTS = 1000
"""Of one look."""


class NewJob(JobSettings):
    """A job over all checkpoints that the series has now, and, if it is to follow, over those it has later. What is
    left out takes its default.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})
    series: Id
    follow: bool = Field(
        default=False,
        description="Measure each new checkpoint as it comes, and read the stages again, until POST …/finish.",
    )

    def settings(self) -> JobSettings:
        """What to compute."""
        return JobSettings.model_validate(self.model_dump(exclude={"series", "follow"}))


class ProgressOut(BaseModel):
    """How far a job is."""

    done: int = Field(description="Row-steps done: a row is one chain at one checkpoint.")
    total: int
    fraction: float
    shards: dict[JobState, int]
    rate: float | None = Field(description="Row-steps per second.")
    seconds_left: float | None


class PlanOut(BaseModel):
    """How all shards of a job send rows through the model: chosen by the first, by measuring memory and time."""

    vectorised: bool = Field(description="Whether rows go through the model together.")
    rows_per_call: int
    compiled: bool
    samples_per_call: int = Field(description="In passes over the data.")
    row_bytes: int = Field(description="Memory of a row in a call.")
    budget_bytes: int = Field(description="Memory that a call may take.")
    row_steps_per_second: dict[str, float] = Field(description="Of every plan that was tried.")
    reason: str = Field(description="Why it isn't compiled, if that was asked for.")


class JobOut(BaseModel):
    """A job and how far it is."""

    id: str
    series: str
    state: JobState
    following: bool = Field(description="Whether it takes in new checkpoints of its series: POST …/finish ends that.")
    settings: JobSettings | dict[str, Any] = Field(
        union_mode="left_to_right", description="As stored, where another version stored what this one doesn't know."
    )
    plan: PlanOut | None = Field(
        description="How rows go through the model; null until it is measured. The same job again has the same."
    )
    calibration: dict[str, Any] | None = Field(
        default=None, description='How "auto" settings were chosen: trials and reasons; null if settings were given.'
    )
    progress: ProgressOut
    error: dict[str, Any] | None
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class EventOut(BaseModel):
    """Something that happened to a job."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    kind: str
    data: dict[str, Any]
    created_at: Timestamp


class Events(BaseModel):
    """What happened to a job, in order."""

    data: list[EventOut]


class QuantityOut(Estimate):
    """A number that a measure found, and whether to believe it: its own verdict, or else the measure's."""

    verdict: str
    reason: str


class ResultOut(BaseModel):
    """What one measure found at one checkpoint, and whether to believe it."""

    checkpoint: str
    step: int
    measure: str
    quantities: dict[str, QuantityOut]
    details: dict[str, Any]
    verdict: str
    reason: str
    draws: str | None = Field(
        description="SHA-256 of the file that GET /v1/jobs/{id}/draws/{checkpoint} gives; null if none is kept."
    )


_RESULT_CURSOR = TypeAdapter(tuple[Step, Name])


def _show(session: Session, rows: Sequence[Job]) -> list[JobOut]:
    found = jobs.progress(session, [row.id for row in rows])
    return [
        JobOut.model_validate(
            {
                "id": row.id,
                "series": row.series_id,
                "state": row.state,
                "following": row.following,
                "settings": row.settings,
                "calibration": row.calibration,
                "plan": row.plan,
                "progress": _progress(found.get(row.id, jobs.Progress())),
                "error": row.error,
                "created_at": row.created_at,
                "started_at": row.started_at,
                "finished_at": row.finished_at,
            }
        )
        for row in rows
    ]


def _progress(progress: jobs.Progress) -> ProgressOut:
    fraction = progress.done / progress.total if progress.total else 0.0
    return ProgressOut.model_validate({**asdict(progress), "fraction": fraction})


def _show_results(rows: Sequence[Row[Result, int]]) -> list[ResultOut]:
    return [
        ResultOut(
            checkpoint=result.checkpoint_id,
            step=step,
            measure=result.measure,
            quantities={
                name: QuantityOut.model_validate({"verdict": result.verdict, "reason": result.reason} | found)
                for name, found in result.quantities.items()
            },
            details=result.details,
            verdict=result.verdict,
            reason=result.reason,
            draws=result.draws,
        )
        for result, step in rows
    ]


@router.post("", summary="Run measures over a series", status_code=202)
def post_job(body: NewJob, request: Request, response: Response, shared: Shared, once: Once) -> JobOut:
    def create(session: Session) -> JobOut:
        series = find(session, Series, once.tenant_id, body.series, lock="keep")
        job = jobs.create_job(session, once.tenant_id, series, body.settings(), body.follow)
        added = jobs.num_shards(session, job.id)
        quotas.require_room(session, shared.settings, once.tenant_id, "queued_shards", added, is_added=True)
        response.headers["Location"] = link(request, f"/v1/jobs/{job.id}")
        log.info("job_posted", job=job.id, series=series.id)  # with the request's id: what workers log has the job's
        return _show(session, [job])[0]

    return once(create)


@router.get("", summary="List jobs, newest first")
def list_jobs(
    key: Reader,
    shared: Shared,
    series: Annotated[str | None, Query(description="Of this series only.")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[JobOut]:
    with shared.reading() as session:
        where = [] if series is None else [Job.series_id == find(session, Series, key.tenant_id, series).id]
        rows = newest(session, Job, key.tenant_id, position(after, ID), limit + 1, *where)
        return page(rows, limit, lambda row: row.id, lambda shown: _show(session, shown))


@router.get("/{job_id}", summary="Get a job and its progress")
def get_job(job_id: str, key: Reader, shared: Shared) -> JobOut:
    with shared.reading() as session:
        return _show(session, [find(session, Job, key.tenant_id, job_id)])[0]


@router.post("/{job_id}/cancel", summary="Cancel a job", status_code=202)
def cancel_job(job_id: str, key: Writer, shared: Shared) -> JobOut:
    """What runs hears of it within seconds; what was found stays. A job that has ended is left as it is."""
    with shared.session() as session:
        job = find(session, Job, key.tenant_id, job_id)
        jobs.request_cancel(session, job)
        session.refresh(job)
        return _show(session, [job])[0]


@router.post("/{job_id}/finish", summary="Let a job follow its series no longer", status_code=202)
def finish_job(job_id: str, key: Writer, shared: Shared) -> JobOut:
    """It ends when all checkpoints that the series has now are measured. A job that doesn't follow is left as it is."""
    with shared.session() as session:
        job = find(session, Job, key.tenant_id, job_id)
        following.finish(session, job)
        return _show(session, [job])[0]


@router.post("/{job_id}/retry", summary="Run again what failed or was cancelled", status_code=202)
def retry_job(job_id: str, key: Writer, shared: Shared) -> JobOut:
    """What succeeded stays as it is. A job that has nothing to run again is left as it is."""
    with shared.session() as session:
        job = find(session, Job, key.tenant_id, job_id)
        jobs.retry(session, job)
        log.info("job_retried", job=job.id)
        return _show(session, [job])[0]


@router.get(
    "/{job_id}/events",
    summary="What happened to a job, in order",
    response_model=Events,
    responses={
        200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}},
        204: {"description": "As a stream: the job has ended, and you know all its events."},
    },
)
def list_events(
    job_id: str,
    request: Request,
    key: Reader,
    shared: Shared,
    after: Annotated[int, Query(ge=0, lt=2**63, description="Id of the last event that you know.")] = 0,
    limit: Limit = 1000,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63, description="As `after`, of a stream.")] = None,
) -> Events | Response:
    """With `Accept: text/event-stream` a stream, which goes on until the job has ended, with its progress between."""
    after = after if last_event_id is None else last_event_id
    with shared.reading() as session:
        job = find(session, Job, key.tenant_id, job_id)
        found = [EventOut.model_validate(event) for event in events(session, job.id, after, limit)]
        if EVENT_STREAM not in request.headers.get("Accept", ""):
            return Events(data=found)
        if job.state in jobs.ENDED and not found:
            return Response(status_code=204)
    read = partial(_look, shared, job_id)
    return StreamingResponse(
        stream(shared.announcements, job_id, after, read),
        media_type=EVENT_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _look(shared: State, job_id: str, after: int) -> tuple[list[Message], bool]:
    """The events of a job after one, its progress, and whether these were the last of them. The job may be gone."""
    with shared.reading() as session:
        job = session.get(Job, job_id)
        if job is None:
            return [], True
        found = [EventOut.model_validate(event) for event in events(session, job_id, after, MAX_EVENTS)]
        (shown,) = _show(session, [job])
    messages: list[Message] = [(event.id, event.kind, event.model_dump_json()) for event in found]
    if shown.state == "running":
        messages.append((None, "progress", shown.progress.model_dump_json()))
    return messages, shown.state in jobs.ENDED and len(found) < MAX_EVENTS


@router.get("/{job_id}/results", summary="What was found at each checkpoint")
def list_results(job_id: str, key: Reader, shared: Shared, limit: Limit = 50, after: After = None) -> Page[ResultOut]:
    with shared.reading() as session:
        job = find(session, Job, key.tenant_id, job_id)
        rows = results(session, job, position(after, _RESULT_CURSOR), limit + 1)
        return page(rows, limit, lambda row: (row[1], row[0].measure), _show_results)
