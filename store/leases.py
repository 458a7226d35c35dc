"""The job protocol. PostgreSQL is the truth; a broker message is only a hint that a shard may be due.

States `queued → running → succeeded | failed | cancelled`. A shard is leased: *claim* takes it and raises its fence,
*heartbeat* keeps it, *finish*, *fail*, *release* and *stop* end the lease, and each of them acts only while the fence
is still the claimant's: a worker that was given up for dead can't write. Whoever ends the last shard of a job settles
the job in the same transaction. *reap* and *dispatch* are the sweeper's.

An attempt that got further than all before it is no failure: the next one resumes there. Of those that did not, a shard
may have `max_attempts` in a row that ended by themselves, and MAX_LOSSES that ended with their worker. That may have
been the shard's doing, but hardly ever is.

Every function runs inside the caller's transaction. All clocks are the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from llc.settings import MeasureSettings
from store import certain, owners
from store.jobs import calibrated, event, is_cancelled, lock, settle
from store.tables import Job, Shard, Stage

MAX_BACKOFF_SECONDS = 60.0
MAX_LOSSES = 20

_UNHARMED = """
    state = 'queued', attempt = attempt - 1, run_at = now(), dispatched_at = NULL, lease_owner = NULL,
    lease_expires_at = NULL
"""
"""What becomes of a shard that is given back: due at once, and no attempt is counted."""


_FOUND = [column.key for column in Stage.__table__.columns if not column.foreign_keys]
_STAGE, _STAGE_FOUND = ", ".join(_FOUND), ", ".join(f"r.{name}" for name in _FOUND)
"""What a reading finds of a stage: all but whose it is."""


class LeaseLostError(Exception):
    """The shard is no longer ours: its lease ran out and was given to another, or it was ended."""


@dataclass(frozen=True)
class Lease:
    """A claimed shard: what to compute, and the fence that every later word about it carries."""

    shard_id: str
    job_id: str
    tenant_id: str
    kind: str
    fence: int
    attempt: int
    checkpoint_ids: list[str]
    settings: dict[str, Any]
    """As stored: `store.jobs.settings_of` reads them."""


def claim(session: Session, shard_id: str, owner: str, lease_seconds: float) -> Lease | None:
    """Take a due shard. None: it is taken, ended or not yet due, so the hint was a duplicate."""
    job = (
        session.execute(
            text("SELECT j.* FROM jobs j JOIN shards s ON s.job_id = j.id WHERE s.id = :shard FOR UPDATE OF j"),
            {"shard": shard_id},
        )
        .mappings()
        .first()
    )
    if job is None:
        return None
    shard = (
        session.execute(
            text(
                """
            UPDATE shards
            SET state = 'running', fence = fence + 1, attempt = attempt + 1, lease_owner = :owner, work_done = 0,
                lease_expires_at = now() + make_interval(secs => :lease), started_at = now()
            WHERE id = :shard AND state = 'queued' AND run_at <= now()
            RETURNING *
            """
            ),
            {"shard": shard_id, "owner": owner, "lease": lease_seconds},
        )
        .mappings()
        .first()
    )
    if shard is None:
        return None
    session.execute(
        text("UPDATE jobs SET state = 'running', started_at = coalesce(started_at, now()) WHERE id = :job"),
        {"job": job["id"]},
    )
    if shard["kind"] == "stages":  # what is found from now on may come too late for this reading
        session.execute(update(Job).where(Job.id == job["id"]).values(unread=False))
    event(session, job["id"], "shard.started", {"shard": shard_id, "attempt": shard["attempt"]})
    return Lease(
        shard_id=shard_id,
        job_id=job["id"],
        tenant_id=job["tenant_id"],
        kind=shard["kind"],
        fence=shard["fence"],
        attempt=shard["attempt"],
        checkpoint_ids=shard["checkpoint_ids"],
        settings=job["settings"],
    )


def heartbeat(session: Session, lease: Lease, work_done: int, lease_seconds: float) -> bool:
    """Keep the lease; True if the job is to be cancelled. Raises: LeaseLostError."""
    row = session.execute(
        text(
            """
            UPDATE shards s
            SET lease_expires_at = now() + make_interval(secs => :lease), work_done = least(:done, work_total)
            FROM jobs j
            WHERE s.id = :shard AND s.fence = :fence AND s.state = 'running' AND j.id = s.job_id
            RETURNING j.cancel_requested_at IS NOT NULL
            """
        ),
        {"shard": lease.shard_id, "fence": lease.fence, "done": work_done, "lease": lease_seconds},
    ).first()
    if row is None:
        raise LeaseLostError(lease.shard_id)
    return bool(row[0])


def agree(session: Session, lease: Lease, plan: dict[str, Any]) -> dict[str, Any]:
    """The plan of all shards of the job, in every attempt: this one, if it is the first. Raises: LeaseLostError."""
    agreed = session.scalar(
        text(
            """
            UPDATE jobs j
            SET plan = coalesce(j.plan, :plan)
            FROM shards s
            WHERE s.id = :shard AND s.fence = :fence AND s.state = 'running' AND j.id = s.job_id
            RETURNING j.plan
            """
        ).bindparams(_jsonb("plan")),
        {"shard": lease.shard_id, "fence": lease.fence, "plan": plan},
    )
    if agreed is None:
        raise LeaseLostError(lease.shard_id)
    return agreed


def finish(
    session: Session,
    lease: Lease,
    results: Sequence[dict[str, Any]] = (),
    stages: Sequence[dict[str, Any]] = (),
    blobs: dict[str, int] | None = None,
    calibration: dict[str, Any] | None = None,
) -> None:
    """End a shard with what it found: one statement ends it and inserts, or does neither.

    results, stages: rows of those tables without the ids that the lease gives; blobs: sha256 → size of the artefacts
    that results refer to, already on disk; calibration: {measures, report} of a pilot. Raises: LeaseLostError;
    nothing is written then.
    """
    lock(session, lease.job_id)
    for sha256, size in sorted((blobs or {}).items()):  # in one order, so that nobody waits in a ring
        owners.add_owner(session, lease.tenant_id, sha256, size)
    if lease.kind == "stages":  # of an earlier reading
        session.execute(delete(Stage).where(Stage.job_id == lease.job_id))
    ended = session.execute(
        text(
            f"""
            WITH ended AS (
                UPDATE shards
                SET state = 'succeeded', work_done = work_total, finished_at = now(), error = NULL,
                    lease_owner = NULL, lease_expires_at = NULL
                WHERE id = :shard AND fence = :fence AND state = 'running'
                RETURNING id, job_id, fence
            ), found AS (
                INSERT INTO results (job_id, checkpoint_id, measure, shard_id, fence, quantities, details, verdict,
                                     reason, draws)
                SELECT e.job_id, r.checkpoint_id, r.measure, e.id, e.fence, r.quantities, r.details, r.verdict,
                       r.reason, r.draws
                FROM ended e, jsonb_to_recordset(:results) AS r(checkpoint_id text, measure text, quantities jsonb,
                                                                details jsonb, verdict text, reason text, draws text)
            ), read AS (
                INSERT INTO stages (job_id, tenant_id, series_id, {_STAGE})
                SELECT j.id, j.tenant_id, j.series_id, {_STAGE_FOUND}
                FROM ended e JOIN jobs j ON j.id = e.job_id, jsonb_populate_recordset(NULL::stages, :stages) r
            )
            SELECT count(*) FROM ended
            """
        ).bindparams(*(_jsonb(name) for name in ("results", "stages"))),
        {"shard": lease.shard_id, "fence": lease.fence, "results": list(results), "stages": list(stages)},
    ).scalar_one()
    if not ended:
        raise LeaseLostError(lease.shard_id)
    if lease.kind == "measure":
        session.execute(update(Job).where(Job.id == lease.job_id).values(unread=True))
    if lease.kind == "stages":
        certain.tell(session, lease.job_id)
    if calibration is not None:
        measures = MeasureSettings.model_validate(calibration["measures"])
        calibrated(session, lease.job_id, measures, calibration["report"])
    event(session, lease.job_id, "shard.succeeded", {"shard": lease.shard_id, "attempt": lease.attempt})
    settle(session, lease.job_id)


def is_finished(session: Session, lease: Lease) -> bool:
    """Whether this very lease ended its shard: the answer to a commit of which nobody knows whether it happened."""
    row = session.execute(
        select(Shard.id).where(Shard.id == lease.shard_id, Shard.fence == lease.fence, Shard.state == "succeeded")
    )
    return row.first() is not None


def fail(session: Session, lease: Lease, error: dict[str, Any], permanent: bool = False) -> None:
    """End an attempt that went wrong: try again later, or, after max_attempts or if `permanent`, never."""
    lock(session, lease.job_id)
    _fail(session, lease.shard_id, lease.fence, lease.job_id, error, is_permanent=permanent)


def release(session: Session, lease: Lease) -> None:
    """Give a shard back unharmed, for another worker to take at once (this one is shutting down)."""
    lock(session, lease.job_id)
    if is_cancelled(session, lease.job_id):
        return stop(session, lease)
    session.execute(
        text(
            f"""
            UPDATE shards SET {_UNHARMED}
            WHERE id = :shard AND fence = :fence AND state = 'running'
            """
        ),
        {"shard": lease.shard_id, "fence": lease.fence},
    )
    return None


def give_back(session: Session, shard_id: str, owner: str) -> None:
    """Undo a claim of which its owner never heard, if it took place."""
    session.execute(
        text(
            f"""
            UPDATE shards SET {_UNHARMED}
            WHERE id = :shard AND lease_owner = :owner AND state = 'running'
            """
        ),
        {"shard": shard_id, "owner": owner},
    )


def stop(session: Session, lease: Lease) -> None:
    """End a shard whose job is to be cancelled."""
    lock(session, lease.job_id)
    session.execute(
        text(
            """
            UPDATE shards SET state = 'cancelled', finished_at = now(), lease_owner = NULL, lease_expires_at = NULL
            WHERE id = :shard AND fence = :fence AND state = 'running'
            """
        ),
        {"shard": lease.shard_id, "fence": lease.fence},
    )
    settle(session, lease.job_id)


def reap(session: Session, lease_seconds: float) -> list[str]:
    """Take back the shards whose lease ran out. Not within a lease of the database's own start: while it was down,
    nobody could send a heartbeat.
    """
    expired = (
        session.execute(
            text(
                """
            SELECT id, job_id, fence, lease_owner FROM shards
            WHERE state = 'running' AND lease_expires_at < now()
              AND now() NOT BETWEEN pg_postmaster_start_time()
                                AND pg_postmaster_start_time() + make_interval(secs => :lease)
            ORDER BY job_id
            """
            ),
            {"lease": lease_seconds},
        )
        .mappings()
        .all()
    )
    reaped: list[str] = []
    for shard in expired:
        lock(session, shard["job_id"])
        still = session.execute(
            text("SELECT 1 FROM shards WHERE id = :shard AND fence = :fence AND lease_expires_at < now()"),
            {"shard": shard["id"], "fence": shard["fence"]},
        ).first()
        if still is None:
            continue
        error = {"code": "lease_expired", "detail": f"worker {shard['lease_owner']} was not heard of any more"}
        _fail(session, shard["id"], shard["fence"], shard["job_id"], error, is_loss=True)
        reaped.append(shard["id"])
    return reaped


@dataclass(frozen=True)
class Hint:
    """That a shard is due."""

    shard_id: str
    queue: str
    is_urgent: bool
    """It was begun before, and has waited long enough."""


def dispatch(session: Session, queue: str, again_seconds: float, window: int, lying: int = 0) -> list[Hint]:
    """Mark due shards of a queue as hinted at and return the hints, to be sent once this is committed.

    A hint that was not followed is sent again: the broker may have lost it. At most `window` are under way, of which
    `lying` are known to lie in the broker; those of shards that were begun before don't wait for others, but no more
    than two windows lie there in all, however often nobody follows them.
    """
    urgent = _dispatch(session, queue, again_seconds, window, is_urgent=True, lying=max(0, lying - window))
    return urgent + _dispatch(session, queue, again_seconds, window, is_urgent=False, lying=lying)


def _dispatch(
    session: Session, queue: str, again_seconds: float, window: int, is_urgent: bool, lying: int
) -> list[Hint]:
    rows = session.execute(
        text(
            """
            WITH due AS (
                SELECT id FROM shards
                WHERE state = 'queued' AND run_at <= now() AND queue = :queue AND (fence > 0) = :urgent
                  AND (dispatched_at IS NULL
                       OR dispatched_at NOT BETWEEN now() - make_interval(secs => :again) AND now())
                ORDER BY run_at, id
                LIMIT greatest(0, :window - greatest(:lying, (
                    SELECT count(*) FROM shards
                    WHERE state = 'queued' AND queue = :queue AND (fence > 0) = :urgent
                      AND dispatched_at BETWEEN now() - make_interval(secs => :again) AND now())))
                FOR UPDATE SKIP LOCKED
            )
            UPDATE shards s SET dispatched_at = now() FROM due WHERE s.id = due.id RETURNING s.id
            """
        ),
        {"queue": queue, "again": again_seconds, "window": window, "urgent": is_urgent, "lying": lying},
    )
    return [Hint(shard_id, queue, is_urgent) for shard_id in sorted(rows.scalars())]


def unheard(session: Session, queues: Sequence[str], seconds: float) -> int:
    """How many shards of these queues wait although a hint was sent, in the last so many seconds but not just now."""
    return session.execute(
        text(
            """
            SELECT count(*) FROM shards
            WHERE state = 'queued' AND run_at < now() - make_interval(secs => :seconds) AND queue = ANY(:queues)
              AND dispatched_at BETWEEN now() - make_interval(secs => :seconds)
                                    AND now() - make_interval(secs => :seconds / 4)
            """
        ),
        {"seconds": seconds, "queues": list(queues)},
    ).scalar_one()


def undispatch(session: Session, shard_ids: Sequence[str]) -> None:
    """Take back the mark of hints that could not be sent, so that they are due again at once."""
    session.execute(
        text("UPDATE shards SET dispatched_at = NULL WHERE id = ANY(:shards) AND state = 'queued'"),
        {"shards": list(shard_ids)},
    )


def _fail(
    session: Session,
    shard_id: str,
    fence: int,
    job_id: str,
    error: dict[str, Any],
    is_permanent: bool = False,
    is_loss: bool = False,
) -> None:
    """is_loss: the worker was lost with it."""
    ours = Shard.id == shard_id, Shard.fence == fence, Shard.state == "running"
    shard = session.execute(select(Shard.__table__).where(*ours).with_for_update()).first()
    if shard is None:
        return
    failures, losses = 0, 0
    if shard.work_done <= shard.furthest:
        failures, losses = shard.failures + (not is_loss), shard.losses + is_loss
    over = is_permanent or failures >= shard.max_attempts or losses >= MAX_LOSSES
    state = "cancelled" if is_cancelled(session, job_id) else "failed" if over else "queued"
    pause = min(MAX_BACKOFF_SECONDS, 2.0 ** (failures + losses - 2))
    ended = {
        "state": state,
        "failures": failures,
        "losses": losses,
        "furthest": max(shard.furthest, shard.work_done),
        "finished_at": None if state == "queued" else func.now(),
        "run_at": func.now() + func.make_interval(0, 0, 0, 0, 0, 0, pause),
        "dispatched_at": None,
        "lease_owner": None,
        "lease_expires_at": None,
        "error": error,
    }
    session.execute(update(Shard).where(*ours).values(ended).execution_options(synchronize_session=False))
    kind = {"queued": "shard.retried", "failed": "shard.failed", "cancelled": "shard.cancelled"}[state]
    event(session, job_id, kind, {"shard": shard_id, "attempt": shard.attempt, "error": error})
    settle(session, job_id)


def _jsonb(name: str) -> BindParameter[Any]:
    return bindparam(name, type_=JSONB)
