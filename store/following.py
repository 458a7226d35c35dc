"""Jobs that follow a series in training: what is posted to it is measured as it comes, and the stages are read again.

Nobody has to tell a job of a checkpoint, so nobody can forget it: the sweeper compares what the series has with what
the job has taken in. Every function runs inside the caller's transaction.
"""

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from store import quotas
from store.jobs import add_shards, event, lock, settings_of, settle
from store.settings import StoreSettings
from store.tables import Job, Model, Series, Shard

_BEHIND = text(
    """
    SELECT j.id FROM jobs j
    WHERE j.following
      AND (SELECT count(*) FROM checkpoints c WHERE c.series_id = j.series_id) > j.num_checkpoints
    ORDER BY j.id
    """
)

_NEW = text(
    """
    SELECT c.id FROM checkpoints c
    WHERE c.series_id = :series
      AND c.id NOT IN (SELECT jsonb_array_elements_text(s.checkpoint_ids)
                       FROM shards s WHERE s.job_id = :job AND s.kind = 'measure')
    ORDER BY c.step
    """
)


def behind(session: Session) -> list[str]:
    """The jobs whose series have checkpoints that they don't."""
    return list(session.scalars(_BEHIND))


def take_in(session: Session, job_id: str, settings: StoreSettings) -> int:
    """Give a job that follows its series the checkpoints that it lacks, as many as its tenant's queue has room for; how
    many. None to one that has stopped, or whose row somebody else has just now.
    """
    following = select(Job).where(Job.id == job_id, Job.following).with_for_update(skip_locked=True)
    job = session.scalar(following.execution_options(populate_existing=True))
    if job is None:
        return 0
    return _take(session, job, quotas.room(session, settings, job.tenant_id, "queued_shards"))


def _take(session: Session, job: Job, most: int | None) -> int:
    """At most so many: there are no more shards than checkpoints. The job's row is locked."""
    found = session.scalars(_NEW, {"series": job.series_id, "job": job.id}).all()[:most]
    if not found:
        return 0
    size = session.scalars(
        select(Model.num_parameters).join(Series, Series.model_id == Model.id).where(Series.id == job.series_id)
    ).one()
    pilots = Shard.job_id == job.id, Shard.kind == "calibrate", Shard.state != "succeeded"
    is_waiting = session.scalar(select(Shard.id).where(*pilots)) is not None
    shards = add_shards(session, job.id, settings_of(job.settings), size, found, is_waiting)
    event(session, job.id, "job.extended", {"checkpoints": len(found), "shards": shards})
    return len(found)


def finish(session: Session, job: Job) -> None:
    """Follow no longer: the job ends when what its series has now is measured. A no-op where it doesn't follow."""
    lock(session, job.id)
    session.refresh(job)
    if not job.following:
        return
    _take(session, job, None)
    job.following = False
    session.flush()
    event(session, job.id, "job.finishing", {})
    settle(session, job.id)
    session.refresh(job)
