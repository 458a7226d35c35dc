"""Jobs: made and cut into shards, cancelled, watched, and settled when their last shard has ended.

Every function runs inside the caller's transaction. A job's row is locked before its shards', here and in
`store.leases`, so that no two transactions can wait for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import RowMapping, delete, exists, func, insert, select, text, update
from sqlalchemy.orm import Session

from llc.errors import InputError
from llc.models import MODEL_SPEC
from llc.patterns import matching
from llc.settings import AutoLLCSettings, ChainSettings, JobSettings, MeasureSettings
from store import webhooks
from store.datasets import check_fits
from store.errors import ConflictError
from store.ids import new_id
from store.owned import find
from store.tables import JOB_STATES, Checkpoint, Dataset, Event, Job, Model, Series, Shard, Stage

ENDED = ("succeeded", "failed", "cancelled")
CHANNEL = "lambdahat_events"
NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # psycopg can't read PostgreSQL's 'infinity'


@dataclass(frozen=True)
class Progress:
    """How far a job is. done, total: row-steps; rate: row-steps per second; None while unknown."""

    done: int = 0
    total: int = 0
    shards: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JOB_STATES, 0))
    rate: float | None = None
    seconds_left: float | None = None


def create_job(session: Session, tenant_id: str, series: Series, settings: JobSettings, following: bool = False) -> Job:
    """A job over all checkpoints that the series has now, cut into shards; following: and over those it has later.

    Raises: InputError `empty_series`, or for a refinement that doesn't fit; NotFoundError for its data set.
    """
    pilot = settings.measures.llc if isinstance(settings.measures.llc, AutoLLCSettings) else None
    checkpoint_ids = session.scalars(
        select(Checkpoint.id).where(Checkpoint.series_id == series.id).order_by(Checkpoint.step)
    ).all()
    if not checkpoint_ids and not (following and pilot is None):
        raise InputError(
            "empty_series",
            f"series '{series.id}' has no checkpoints{' that a pilot could take' if pilot else ''}",
            "post its checkpoints first, then the job",
        )
    model = session.scalars(select(Model).where(Model.id == series.model_id)).one()
    _check_refinements(session, tenant_id, model, settings.measures.llc)
    kept = settings.model_dump(mode="json")
    job = Job(id=new_id("job"), tenant_id=tenant_id, series_id=series.id, settings=kept, following=following)
    # The same job again gives the same numbers, to the last bit.
    same = Job.series_id == series.id, Job.settings == job.settings, Job.plan.is_not(None)
    job.plan = session.scalars(select(Job.plan).where(*same).order_by(Job.id.desc()).limit(1)).first()
    session.add(job)
    session.flush()
    num_shards = add_shards(session, job.id, settings, model.num_parameters, checkpoint_ids, is_waiting=bool(pilot))
    if pilot:
        chosen = [checkpoint_ids[i] for i in pilot.pilot(len(checkpoint_ids))]
        session.execute(
            insert(Shard).values(
                id=new_id("shd"),
                job_id=job.id,
                ordinal=num_shards + 1,
                kind="calibrate",
                queue=settings.device,
                checkpoint_ids=chosen,
            )
        )
    # The stages are read when every checkpoint is done: `settle` brings their time forward.
    session.execute(
        insert(Shard).values(
            id=new_id("shd"), job_id=job.id, ordinal=num_shards, kind="stages", checkpoint_ids=[], run_at=NEVER
        )
    )
    event(session, job.id, "job.queued", {"checkpoints": len(checkpoint_ids), "shards": num_shards})
    session.refresh(job)
    return job


def settings_of(stored: dict[str, Any]) -> JobSettings:
    """Those of a job, from its row. Raises: InputError `settings_unknown`."""
    try:
        return JobSettings.model_validate(stored)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(
            "settings_unknown",
            f"this version of lambdahat doesn't know the job's settings, from '{where}' on: another one stored them",
            "run the newer version and retry the job, or post it again",
        ) from None


def add_shards(
    session: Session,
    job_id: str,
    settings: JobSettings,
    num_parameters: int,
    checkpoint_ids: Sequence[str],
    is_waiting: bool,
) -> int:
    """Cut checkpoints into shards that are due now, or, if they wait for a pilot, when `calibrated` says so; how many.
    The job's row is locked, or new.
    """
    taken = select(func.max(Shard.ordinal)).where(Shard.job_id == job_id)
    first = session.scalar(taken)
    start = 0 if first is None else first + 1
    size = settings.shard_size(num_parameters)
    shards = [checkpoint_ids[at : at + size] for at in range(0, len(checkpoint_ids), size)]
    rows = [
        {
            "id": new_id("shd"),
            "job_id": job_id,
            "ordinal": ordinal,
            "kind": "measure",
            "queue": settings.device,
            "checkpoint_ids": list(ids),
            "work_total": len(ids) * settings.measures.work,
        }
        | ({"run_at": NEVER} if is_waiting else {})
        for ordinal, ids in enumerate(shards, start)
    ]
    if rows:
        session.execute(insert(Shard), rows)
        taken_in = {"num_checkpoints": Job.num_checkpoints + len(checkpoint_ids)}
        session.execute(update(Job).where(Job.id == job_id).values(taken_in))
    return len(rows)


def num_shards(session: Session, job_id: str) -> int:
    """Of all kinds."""
    return session.scalars(select(func.count()).select_from(Shard).where(Shard.job_id == job_id)).one()


def _check_refinements(session: Session, tenant_id: str, model: Model, llc: ChainSettings | None) -> None:
    """Refuse weights that the model doesn't have, and data sets that it can't be evaluated on."""
    if llc is None or not llc.refined:
        return
    for dataset_id in llc.datasets:
        check_fits(model, find(session, Dataset, tenant_id, dataset_id))
    layout = MODEL_SPEC.validate_python(model.spec).layout()
    for refinement in llc.refined.values():
        list(matching(layout, refinement.weights or ()))


def request_cancel(session: Session, job: Job) -> None:
    """Ask for an end: what waits is cancelled now, what runs when its worker hears of it. A no-op on an ended job."""
    lock(session, job.id)
    session.refresh(job)
    if job.state in ENDED or job.cancel_requested_at is not None:
        return
    session.execute(
        text("UPDATE jobs SET cancel_requested_at = now(), following = false WHERE id = :job"), {"job": job.id}
    )
    session.execute(
        text(
            "UPDATE shards SET state = 'cancelled', finished_at = now()"
            " WHERE job_id = :job AND state = 'queued' AND kind <> 'stages'"
        ),
        {"job": job.id},
    )
    event(session, job.id, "job.cancel_requested", {})
    settle(session, job.id)
    session.refresh(job)


_AGAIN = text(
    """
    UPDATE shards
    SET state = 'queued', attempt = 0, failures = 0, losses = 0, furthest = 0, work_done = 0, error = NULL,
        finished_at = NULL, dispatched_at = NULL,
        run_at = CASE
            WHEN kind = 'stages' THEN :never
            WHEN kind = 'measure' AND EXISTS (SELECT 1 FROM shards p WHERE p.job_id = :job AND p.kind = 'calibrate'
                                              AND p.state <> 'succeeded') THEN :never
            ELSE now()
        END
    WHERE job_id = :job AND (state IN ('failed', 'cancelled') OR kind = 'stages')
    """
)


def retry(session: Session, job: Job) -> None:
    """Run again what failed or was cancelled; what succeeded stays. A no-op where there is nothing to run again.

    Raises: ConflictError `job_ending` while a job that is to be cancelled has not ended.
    """
    lock(session, job.id)
    session.refresh(job)
    if job.cancel_requested_at is not None and job.state not in ENDED:
        raise ConflictError("job_ending", f"job '{job.id}' is being cancelled", "try again when it has ended")
    undone = Shard.job_id == job.id, Shard.state.in_(("failed", "cancelled"))
    if session.scalars(select(Shard.id).where(*undone).limit(1)).first() is None:
        return
    session.execute(delete(Stage).where(Stage.job_id == job.id))  # they are read again when all is done
    session.execute(_AGAIN, {"job": job.id, "never": NEVER})
    measured = exists().where(Shard.job_id == job.id, Shard.kind == "measure", Shard.state == "succeeded")
    ended = {"state": "queued", "finished_at": None, "error": None, "cancel_requested_at": None, "unread": measured}
    session.execute(update(Job).where(Job.id == job.id).values(**ended))
    event(session, job.id, "job.retried", {})
    settle(session, job.id)
    session.refresh(job)


def progress(session: Session, job_ids: Sequence[str]) -> dict[str, Progress]:
    """How far these jobs are; a job that doesn't exist has no entry."""
    rows = session.execute(
        text(
            """
            SELECT s.job_id, s.state, count(*) AS shards, sum(s.work_done) AS done, sum(s.work_total) AS total,
                   extract(epoch FROM coalesce(min(j.finished_at), now()) - min(j.started_at)) AS seconds,
                   bool_or(j.finished_at IS NOT NULL) AS ended
            FROM shards s JOIN jobs j ON j.id = s.job_id
            WHERE s.job_id = ANY(:jobs) AND s.kind = 'measure'
            GROUP BY s.job_id, s.state
            """
        ),
        {"jobs": list(job_ids)},
    ).mappings()
    by_job: dict[str, list[RowMapping]] = {}
    for row in rows:
        by_job.setdefault(row["job_id"], []).append(row)
    return {job_id: _progress(states) for job_id, states in by_job.items()}


def _progress(states: list[RowMapping]) -> Progress:
    done, total = (int(sum(row[name] for row in states)) for name in ("done", "total"))
    seconds = states[0]["seconds"]
    rate = done / float(seconds) if seconds and done else None
    return Progress(
        done=done,
        total=total,
        shards={state: sum(int(row["shards"]) for row in states if row["state"] == state) for state in JOB_STATES},
        rate=rate,
        seconds_left=(total - done) / rate if rate and not states[0]["ended"] else None,
    )


def lock(session: Session, job_id: str) -> None:
    """Take a job's row, before any of its shards'."""
    session.execute(text("SELECT 1 FROM jobs WHERE id = :job FOR UPDATE"), {"job": job_id})


def is_cancelled(session: Session, job_id: str) -> bool:
    """Whether the job is to end, or has been ended, by request."""
    return session.scalar(select(Job.cancel_requested_at).where(Job.id == job_id)) is not None


def calibrated(session: Session, job_id: str, measures: MeasureSettings, report: dict[str, Any]) -> None:
    """A pilot has chosen: keep its settings and its report, and let the measuring begin. The job's row is locked."""
    job = session.scalars(select(Job).where(Job.id == job_id)).one()
    settings = settings_of(job.settings).model_copy(update={"measures": measures})
    job.settings, job.calibration = settings.model_dump(mode="json"), report
    job.plan = None  # that of the pilot: what it has chosen may need another
    session.flush()
    session.execute(
        text(
            "UPDATE shards SET run_at = now(), work_total = jsonb_array_length(checkpoint_ids) * :work"
            " WHERE job_id = :job AND kind = 'measure' AND state = 'queued' AND run_at = :never"
        ),
        {"job": job_id, "work": settings.measures.work, "never": NEVER},
    )
    event(session, job_id, "job.calibrated", {"llc": settings.model_dump(mode="json")["measures"]["llc"]})


_GIVE_UP_MEASURING = text(
    """
    UPDATE shards SET state = 'cancelled', finished_at = now()
    WHERE job_id = :job AND kind = 'measure' AND state = 'queued'
      AND EXISTS (SELECT 1 FROM shards p WHERE p.job_id = :job AND p.kind = 'calibrate' AND p.state = 'failed')
    """
)


_READ = text(
    """
    UPDATE shards
    SET state = 'queued', attempt = 0, failures = 0, losses = 0, error = NULL, dispatched_at = NULL,
        run_at = greatest(now(), finished_at + (finished_at - started_at)), finished_at = NULL
    WHERE job_id = :job AND kind = 'stages' AND (state <> 'queued' OR run_at = :never)
    """
)
"""The stages, for the first time or again: not before its time where an attempt failed, and not sooner than the last
reading took, so that one that follows takes half of a worker at most.
"""


_BY_STATE = text(
    """
    SELECT kind, state, count(*) AS num, min(ordinal) AS first, min(run_at) AS run_at,
           (array_agg(error ORDER BY ordinal) FILTER (WHERE state = 'failed'))[1] AS error
    FROM shards WHERE job_id = :job GROUP BY kind, state
    """
)
"""A job that follows has thousands of shards, and this is asked whenever one of them ends."""


def settle(session: Session, job_id: str) -> None:
    """Bring on the stages of a job once nothing else of it waits or runs, or, if it follows its series, whenever there
    are new results; end it once they are read. The job's row is locked.
    """
    session.execute(_GIVE_UP_MEASURING, {"job": job_id})
    following, unread, cancelled = session.execute(
        select(Job.following, Job.unread, Job.cancel_requested_at.is_not(None)).where(Job.id == job_id)
    ).one()
    shards = session.execute(_BY_STATE, {"job": job_id}).all()
    if following and any(shard.kind == "calibrate" and shard.state == "failed" for shard in shards):
        following = False  # without settings nothing that comes can be measured
        session.execute(update(Job).where(Job.id == job_id).values(following=False))
    last = next(shard for shard in shards if shard.kind == "stages")
    waits = any(shard.state not in ENDED for shard in shards if shard.kind != "stages")
    if last.state == "running" or (waits and not following):
        return
    if unread and not cancelled:
        session.execute(_READ, {"job": job_id, "never": NEVER})
        return
    if following:
        return
    if last.state == "queued":
        if last.run_at != NEVER and not cancelled:
            return
        session.execute(
            text("UPDATE shards SET state = 'cancelled', finished_at = now() WHERE job_id = :job AND kind = 'stages'"),
            {"job": job_id},
        )
    failed = sorted((shard for shard in shards if shard.state == "failed"), key=lambda shard: shard.first)
    state = "cancelled" if cancelled else "failed" if failed else "succeeded"
    error = None
    if state == "failed":
        detail = f"{sum(some.num for some in failed)} of {sum(some.num for some in shards)} shards failed"
        error = {"code": "shards_failed", "detail": detail, "first": failed[0].error}
    session.execute(update(Job).where(Job.id == job_id).values(state=state, finished_at=text("now()"), error=error))
    event(session, job_id, f"job.{state}", {})


def event(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> None:
    """Write down that something happened to a job, and tell who listens. The job's row is locked, or new: so the events
    of a job are committed in the order of their ids.
    """
    tenant_id = select(Job.tenant_id).where(Job.id == job_id).scalar_subquery()
    added = insert(Event).values(tenant_id=tenant_id, job_id=job_id, kind=kind, data=data)
    at = session.execute(added.returning(Event.created_at)).scalar_one()
    session.execute(text("SELECT pg_notify(:channel, :job)"), {"channel": CHANNEL, "job": job_id})
    if kind in webhooks.EVENTS:
        job = session.execute(select(Job.tenant_id, Job.series_id, Job.state).where(Job.id == job_id)).one()
        about = {"transition": data} if kind.startswith("transition.") else {}
        webhooks.announce(session, job.tenant_id, kind, at, _told(job_id, job.series_id, job.state) | about)


def _told(job_id: str, series_id: str, state: str) -> dict[str, Any]:
    """What a webhook is told of a job: where to look."""
    here, series = f"/v1/jobs/{job_id}", f"/v1/series/{series_id}"
    links = {"job": here, "results": f"{here}/results", "curve": f"{series}/curve?job={job_id}"}
    return {"job": job_id, "series": series_id, "state": state, "links": links}
