"""The job protocol on a real PostgreSQL: leases, fences, settling, cancelling, hints."""

import dataclasses
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session

from llc.errors import InputError
from llc.settings import JobSettings
from store import jobs as store_jobs
from store import leases, owners, results, tenants
from store.errors import NotFoundError
from store.ids import new_id
from store.leases import MAX_LOSSES, Hint, Lease, LeaseLostError
from store.tables import Blob, Checkpoint, Dataset, Event, Job, Model, Result, Series, Shard, Stage

LEASE = 30.0
ALL = 100_000  # a window that holds what other tests left waiting, too


@dataclass
class Jobs:
    """Jobs of one tenant, made and moved by the protocol's own functions, each call a transaction."""

    engine: Engine
    tenant_id: str

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine) as session, session.begin():
            yield session

    def series(self, session: Session, num_checkpoints: int) -> Series:
        sha256 = "0" * 64
        if session.get(Blob, sha256) is None:
            session.add(Blob(sha256=sha256, size=0))
            session.flush()
        common = {"tenant_id": self.tenant_id, "name": "test"}
        model = Model(id=new_id("mdl"), spec={}, num_parameters=10, **common)
        dataset = Dataset(id=new_id("dst"), blob=sha256, arrays={}, num_samples=1, **common)
        session.add_all([model, dataset])
        session.flush()
        series = Series(id=new_id("ser"), model_id=model.id, dataset_id=dataset.id, **common)
        session.add(series)
        session.flush()
        session.add_all(
            Checkpoint(id=new_id("ckp"), tenant_id=self.tenant_id, series_id=series.id, step=step, blob=sha256)
            for step in range(num_checkpoints)
        )
        session.flush()
        return series

    def create(self, num_checkpoints: int = 4, per_shard: int = 2) -> tuple[str, list[str]]:
        """(job, shards in their order, the stages last)."""
        with self.session() as session:
            settings = JobSettings(checkpoints_per_shard=per_shard)
            job = store_jobs.create_job(session, self.tenant_id, self.series(session, num_checkpoints), settings)
            shards = session.scalars(select(Shard.id).where(Shard.job_id == job.id).order_by(Shard.ordinal)).all()
            return job.id, list(shards)

    def claim(self, shard: str, owner: str = "me") -> Lease | None:
        with self.session() as session:
            return leases.claim(session, shard, owner, LEASE)

    def claimed(self, shard: str) -> Lease:
        lease = self.claim(shard)
        assert lease is not None
        return lease

    def finish(self, lease: Lease) -> None:
        results = [result(checkpoint) for checkpoint in lease.checkpoint_ids]
        with self.session() as session:
            leases.finish(session, lease, results, [stage()] if lease.kind == "stages" else [])

    def fail(self, lease: Lease, permanent: bool = False) -> None:
        with self.session() as session:
            leases.fail(session, lease, {"code": "boom", "detail": "it went wrong"}, permanent)

    def cancel(self, job: str) -> None:
        with self.session() as session:
            store_jobs.request_cancel(session, session.get_one(Job, job))

    def expire(self, shard: str) -> None:
        with self.session() as session:
            session.execute(text(f"UPDATE shards SET lease_expires_at = now() - interval '1 s' WHERE id = '{shard}'"))

    def make_due(self, shard: str) -> None:
        with self.session() as session:
            session.execute(text(f"UPDATE shards SET run_at = now() WHERE id = '{shard}'"))

    def shard(self, shard: str) -> Shard:
        with Session(self.engine) as session:
            return session.get_one(Shard, shard)

    def job(self, job: str) -> Job:
        with Session(self.engine) as session:
            return session.get_one(Job, job)

    def count(self, table: type[Result] | type[Stage], job: str) -> int:
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).select_from(table).where(table.job_id == job)) or 0

    def events(self, job: str) -> list[str]:
        with Session(self.engine) as session:
            return list(session.scalars(select(Event.kind).where(Event.job_id == job).order_by(Event.id)))


def result(checkpoint_id: str, measure: str = "loss") -> dict[str, Any]:
    return {
        "checkpoint_id": checkpoint_id,
        "measure": measure,
        "quantities": {"loss": {"value": 1.0, "std_error": None}},
        "details": {},
        "verdict": "ok",
        "reason": "",
    }


def stage() -> dict[str, Any]:
    return {
        "id": new_id("stg"),
        "ordinal": 0,
        "kind": "transition",
        "type": "A",
        "from_step": 0,
        "to_step": 3,
        "delta_loss": -1.0,
        "delta_loss_std_error": 0.1,
        "delta_llc": 5.0,
        "delta_llc_std_error": 0.5,
        "details": {"reason": ""},
    }


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    with Session(engine) as session, session.begin():
        return Jobs(engine, tenants.ensure_tenant(session, new_id("ten")).id)


def test_a_job_runs_from_queued_to_succeeded(jobs: Jobs) -> None:
    job, shards = jobs.create(num_checkpoints=3, per_shard=2)
    assert [len(jobs.shard(shard).checkpoint_ids) for shard in shards] == [2, 1, 0]
    assert jobs.claim(shards[-1]) is None  # the stages wait
    first = jobs.claimed(shards[0])
    assert jobs.job(job).state == "running"
    jobs.finish(first)
    assert jobs.claim(shards[-1]) is None  # ... for every shard
    jobs.finish(jobs.claimed(shards[1]))
    last = jobs.claimed(shards[-1])
    assert last.kind == "stages"
    jobs.finish(last)
    assert jobs.job(job).state == "succeeded"
    assert jobs.job(job).finished_at is not None
    assert (jobs.count(Result, job), jobs.count(Stage, job)) == (3, 1)
    assert jobs.events(job)[0] == "job.queued"
    assert jobs.events(job)[-1] == "job.succeeded"


def test_an_empty_series_is_refused(jobs: Jobs) -> None:
    with pytest.raises(InputError) as error, jobs.session() as session:
        store_jobs.create_job(session, jobs.tenant_id, jobs.series(session, 0), JobSettings())
    assert error.value.code == "empty_series"


def test_of_many_who_claim_one_gets_the_shard(jobs: Jobs) -> None:
    _, shards = jobs.create()
    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(lambda owner: jobs.claim(shards[0], f"worker {owner}"), range(8)))
    assert len([lease for lease in leases if lease]) == 1
    assert jobs.claim("shd_unknown") is None


def test_who_lost_the_lease_writes_nothing(jobs: Jobs) -> None:
    job, shards = jobs.create(num_checkpoints=2, per_shard=2)
    late = jobs.claimed(shards[0])
    jobs.expire(shards[0])
    with jobs.session() as session:
        assert shards[0] not in leases.reap(session, lease_seconds=1e9)  # the database has just started
        assert shards[0] in leases.reap(session, lease_seconds=0.0)
    assert jobs.claim(shards[0]) is None  # not before the back-off
    jobs.make_due(shards[0])
    now = jobs.claimed(shards[0])
    assert now.fence == late.fence + 1
    assert now.attempt == 2
    with pytest.raises(LeaseLostError), jobs.session() as session:
        leases.heartbeat(session, late, 1, LEASE)
    with pytest.raises(LeaseLostError):
        jobs.finish(late)
    jobs.fail(late)
    with jobs.session() as session:
        leases.release(session, late)
        leases.stop(session, late)
    assert jobs.shard(shards[0]).state == "running"
    assert jobs.count(Result, job) == 0
    jobs.finish(now)
    with pytest.raises(LeaseLostError):
        jobs.finish(now)  # twice
    assert jobs.count(Result, job) == 2
    with jobs.session() as session:
        assert leases.is_finished(session, now)
        assert not leases.is_finished(session, late)


def test_files_that_results_name_are_the_tenants_only_if_the_shard_ends(jobs: Jobs) -> None:
    job, shards = jobs.create(num_checkpoints=1)
    lease, sha256 = jobs.claimed(shards[0]), hashlib.sha256(job.encode()).hexdigest()
    rows = [result(lease.checkpoint_ids[0], "llc") | {"draws": sha256}, result(lease.checkpoint_ids[0])]

    def owns_it() -> bool:
        with jobs.session() as session:
            return owners.owned(session, jobs.tenant_id, [sha256]) == {sha256}

    with pytest.raises(LeaseLostError), jobs.session() as session:
        leases.finish(session, dataclasses.replace(lease, fence=7), rows, blobs={sha256: 3})
    assert not owns_it()
    with jobs.session() as session:
        leases.finish(session, lease, rows, blobs={sha256: 3})
        assert results.draws(session, job, lease.checkpoint_ids[0], "llc") == sha256
        for checkpoint, measure in ((lease.checkpoint_ids[0], "loss"), ("ckp_\0", "llc"), (new_id("ckp"), "llc")):
            with pytest.raises(NotFoundError):
                results.draws(session, job, checkpoint, measure)
    assert owns_it()


def test_a_heartbeat_keeps_the_lease_and_tells_of_progress(jobs: Jobs) -> None:
    job, shards = jobs.create()
    lease = jobs.claimed(shards[0])
    jobs.expire(shards[0])
    with jobs.session() as session:
        assert leases.heartbeat(session, lease, 7, LEASE) is False
        assert shards[0] not in leases.reap(session, lease_seconds=0.0)
        found = store_jobs.progress(session, [job])[job]
    assert (found.done, found.shards["running"], found.shards["queued"]) == (7, 1, 1)
    assert found.total == 4 * JobSettings().measures.work
    assert found.rate is not None
    assert found.rate > 0


def test_a_shard_that_goes_wrong_is_tried_again_and_then_fails(jobs: Jobs) -> None:
    job, shards = jobs.create()
    attempts = 0
    while jobs.shard(shards[0]).state != "failed":
        jobs.make_due(shards[0])
        jobs.fail(jobs.claimed(shards[0]))
        attempts += 1
        assert attempts <= 5
    assert attempts == jobs.shard(shards[0]).max_attempts
    assert jobs.job(job).state == "running"  # the other shard still waits
    jobs.finish(jobs.claimed(shards[1]))
    jobs.finish(jobs.claimed(shards[2]))  # what there is has its stages
    ended = jobs.job(job)
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error["first"]["code"] == "boom"
    assert jobs.count(Result, job) == 2


def test_an_attempt_that_got_further_is_no_failure(jobs: Jobs) -> None:
    _, shards = jobs.create()

    def attempt(work_done: int) -> tuple[str, int]:
        jobs.make_due(shards[0])
        lease = jobs.claimed(shards[0])
        with jobs.session() as session:
            leases.heartbeat(session, lease, work_done, LEASE)
        jobs.fail(lease)
        shard = jobs.shard(shards[0])
        return shard.state, shard.failures

    assert [attempt(work) for work in (0, 0, 0, 0, 7)] == [("queued", failures) for failures in (1, 2, 3, 4, 0)]
    assert [attempt(7) for _ in range(4)] == [("queued", failures) for failures in (1, 2, 3, 4)]
    assert [attempt(work) for work in (8, 9)] == [("queued", 0)] * 2
    assert [attempt(3)[0] for _ in range(5)] == ["queued"] * 4 + ["failed"]


def test_a_shard_whose_workers_are_lost_fails_later_than_one_that_fails_by_itself(jobs: Jobs) -> None:
    _, shards = jobs.create()

    def lose() -> str:
        jobs.make_due(shards[0])
        jobs.claimed(shards[0])
        jobs.expire(shards[0])
        with jobs.session() as session:
            leases.reap(session, lease_seconds=0.0)
        return jobs.shard(shards[0]).state

    assert jobs.shard(shards[0]).max_attempts < MAX_LOSSES
    assert [lose() for _ in range(MAX_LOSSES)] == ["queued"] * (MAX_LOSSES - 1) + ["failed"]


def test_bad_input_fails_at_once_and_alone_ends_the_job(jobs: Jobs) -> None:
    job, shards = jobs.create(num_checkpoints=1)
    jobs.fail(jobs.claimed(shards[0]), permanent=True)
    assert jobs.shard(shards[0]).state == "failed"
    assert jobs.shard(shards[1]).state == "cancelled"  # no stages of nothing
    assert jobs.job(job).state == "failed"


def test_a_released_shard_is_due_at_once_and_has_lost_no_attempt(jobs: Jobs) -> None:
    _, shards = jobs.create()
    lease = jobs.claimed(shards[0])
    with jobs.session() as session:
        leases.release(session, lease)
    assert jobs.claimed(shards[0]).attempt == 1


def test_cancel_ends_what_waits_now_and_what_runs_when_it_hears(jobs: Jobs) -> None:
    job, shards = jobs.create()
    lease = jobs.claimed(shards[0])
    jobs.cancel(job)
    jobs.cancel(job)  # again: no harm
    assert jobs.shard(shards[1]).state == "cancelled"
    assert jobs.job(job).state == "running"
    with jobs.session() as session:
        assert leases.heartbeat(session, lease, 1, LEASE) is True
        leases.stop(session, lease)
    assert [jobs.shard(shard).state for shard in shards] == ["cancelled"] * 3
    assert jobs.job(job).state == "cancelled"
    jobs.cancel(job)
    assert jobs.events(job).count("job.cancelled") == 1


def test_a_cancelled_shard_that_dies_is_not_tried_again(jobs: Jobs) -> None:
    job, shards = jobs.create(num_checkpoints=1)
    lease = jobs.claimed(shards[0])
    jobs.cancel(job)
    jobs.fail(lease)
    assert jobs.job(job).state == "cancelled"


def test_the_last_two_shards_ending_at_once_bring_on_the_stages_once(jobs: Jobs) -> None:
    for _ in range(5):
        job, shards = jobs.create()
        leases = [jobs.claimed(shard) for shard in shards[:2]]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(jobs.finish, leases))
        jobs.finish(jobs.claimed(shards[2]))
        assert jobs.job(job).state == "succeeded"


def test_hints_are_sent_once_and_again_when_they_are_old_or_were_not_sent(jobs: Jobs) -> None:
    _, shards = jobs.create()

    def dispatch(again_seconds: float) -> set[str]:
        with jobs.session() as session:
            return {hint.shard_id for hint in leases.dispatch(session, "auto", again_seconds, ALL)} & set(shards)

    assert dispatch(60.0) == set(shards[:2])
    assert dispatch(60.0) == set()
    with jobs.session() as session:
        leases.undispatch(session, shards[:1])
    assert dispatch(60.0) == {shards[0]}
    assert dispatch(0.0) == set(shards[:2])
    jobs.claimed(shards[0])
    assert dispatch(0.0) == {shards[1]}


def test_no_more_hints_than_the_window_are_under_way(jobs: Jobs) -> None:
    with jobs.session() as session:
        session.execute(
            update(Shard).where(Shard.state == "queued").values(run_at=store_jobs.NEVER, dispatched_at=None)
        )  # other tests'
    _, shards = jobs.create(num_checkpoints=6, per_shard=1)
    with jobs.session() as session:
        assert leases.dispatch(session, "gpu", 60.0, 4) == []
        assert leases.dispatch(session, "auto", 60.0, 4, lying=4) == []
        assert [hint.shard_id for hint in leases.dispatch(session, "auto", 60.0, 4)] == sorted(shards)[:4]
        assert leases.dispatch(session, "auto", 60.0, 4) == []
    lease = jobs.claimed(shards[0])
    with jobs.session() as session:
        assert [hint.shard_id for hint in leases.dispatch(session, "auto", 60.0, 4)] == [sorted(shards)[4]]
    jobs.fail(lease)
    jobs.make_due(shards[0])
    with jobs.session() as session:
        assert leases.dispatch(session, "auto", 60.0, 4, lying=8) == []
    with jobs.session() as session:  # what was begun waits for no others
        assert leases.dispatch(session, "auto", 60.0, 4, lying=4) == [Hint(shards[0], "auto", is_urgent=True)]


def test_a_shard_whose_hint_nobody_followed_is_unheard(jobs: Jobs) -> None:
    """Neither one whose hint was just sent, nor one for which none was sent for long: the sweeper is away then."""
    _, shards = jobs.create()

    def unheard(hinted_seconds_ago: float) -> int:
        with jobs.session() as session:
            session.execute(
                update(Shard)
                .where(Shard.id == shards[0])
                .values(
                    queue="gpu",
                    run_at=text("now() - interval '1 hour'"),
                    dispatched_at=text(f"now() - interval '{hinted_seconds_ago} seconds'"),
                )
            )
            return leases.unheard(session, ["gpu"], 60)

    assert [unheard(ago) for ago in (1, 20, 59, 100)] == [0, 1, 1, 0]
    jobs.claimed(shards[0])
    with jobs.session() as session:
        assert leases.unheard(session, ["gpu"], 60) == 0
