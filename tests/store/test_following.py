"""Jobs that follow a series: nothing that is posted is forgotten, measured twice, or left out of the stages."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text

from llc.errors import InputError
from llc.settings import JobSettings, MeasureSettings
from store import following
from store import jobs as store_jobs
from store.ids import new_id
from store.leases import Lease, finish
from store.settings import StoreSettings
from store.tables import Checkpoint, Event, Job, Result, Series, Shard, Stage, Tenant
from tests.store.test_leases import Jobs, jobs, stage

__all__ = ["jobs"]

PER_SHARD = 2
SETTINGS = StoreSettings.model_validate(
    {"database_url": "postgresql://host/name", "broker_url": "redis://host:6379/0", "blob_dir": "/nowhere"}
)


def follow(jobs: Jobs, num_checkpoints: int, llc: Any = None) -> str:
    """A job that follows a new series."""
    with jobs.session() as session:
        series = jobs.series(session, num_checkpoints)
        measures = MeasureSettings() if llc is None else MeasureSettings(llc=llc)
        settings = JobSettings(measures=measures, checkpoints_per_shard=PER_SHARD)
        return store_jobs.create_job(session, jobs.tenant_id, series, settings, following=True).id


def post(jobs: Jobs, job: str, *steps: int) -> None:
    """Checkpoints for its series."""
    with jobs.session() as session:
        series = session.get_one(Series, session.get_one(Job, job).series_id)
        session.add_all(
            Checkpoint(id=new_id("ckp"), tenant_id=jobs.tenant_id, series_id=series.id, step=step, blob="0" * 64)
            for step in steps
        )


def sweep(jobs: Jobs, job: str) -> int:
    """What the sweeper does."""
    with jobs.session() as session:
        found = following.behind(session)
    if job not in found:
        return 0
    with jobs.session() as session:
        return following.take_in(session, job, SETTINGS)


def end(jobs: Jobs, job: str) -> None:
    with jobs.session() as session:
        following.finish(session, session.get_one(Job, job))


def due(jobs: Jobs, job: str, kind: str = "measure") -> list[str]:
    """Its shards that may be claimed, in their order."""
    with jobs.session() as session:
        wanted = Shard.job_id == job, Shard.kind == kind, Shard.state == "queued", Shard.run_at <= text("now()")
        return list(session.scalars(select(Shard.id).where(*wanted).order_by(Shard.ordinal)))


def work(jobs: Jobs, job: str, *, read: bool = True) -> int:
    """Do all that is due, the stages last, if they are to be read; how often they were."""
    readings = 0
    while shards := due(jobs, job) or (due(jobs, job, "stages") if read else []):
        lease = jobs.claimed(shards[0])
        readings += lease.kind == "stages"
        jobs.finish(lease)
    return readings


def read(jobs: Jobs, lease: Lease, *stages: dict[str, Any]) -> None:
    """End a reading with these stages."""
    with jobs.session() as session:
        finish(session, lease, stages=[row | {"ordinal": ordinal} for ordinal, row in enumerate(stages)])


def test_what_is_posted_later_is_measured_and_read(jobs: Jobs) -> None:
    job = follow(jobs, 3)
    assert work(jobs, job) > 0
    assert (jobs.job(job).state, jobs.count(Result, job)) == ("running", 3)
    assert sweep(jobs, job) == 0
    post(jobs, job, 10, 11, 12)
    assert sweep(jobs, job) == 3
    assert len(due(jobs, job)) == 2  # of two and of one
    assert work(jobs, job) > 0
    assert (jobs.job(job).state, jobs.count(Result, job)) == ("running", 6)
    end(jobs, job)
    assert jobs.job(job).state == "succeeded"
    assert jobs.events(job)[-2:] == ["job.finishing", "job.succeeded"]
    assert "job.extended" in jobs.events(job)


def test_it_may_begin_before_training_does(jobs: Jobs) -> None:
    job = follow(jobs, 0)
    assert (jobs.job(job).state, sweep(jobs, job)) == ("queued", 0)
    post(jobs, job, 0)
    assert (sweep(jobs, job), work(jobs, job)) == (1, 1)
    end(jobs, job)
    assert jobs.job(job).state == "succeeded"


def test_one_that_never_had_anything_ends_too(jobs: Jobs) -> None:
    job = follow(jobs, 0)
    end(jobs, job)
    assert jobs.job(job).state == "succeeded"
    assert sweep(jobs, job) == 0


def test_a_pilot_needs_checkpoints_and_new_ones_wait_for_it(jobs: Jobs) -> None:
    with pytest.raises(InputError) as error:
        follow(jobs, 0, "auto")
    assert error.value.code == "empty_series"
    job = follow(jobs, 2, "auto")
    post(jobs, job, 10)
    assert sweep(jobs, job) == 1
    assert due(jobs, job) == []
    (pilot,) = due(jobs, job, "calibrate")
    chosen = JobSettings().measures.model_dump(mode="json")
    with jobs.session() as session:
        lease = jobs.claimed(pilot)
        finish(session, lease, calibration={"measures": chosen, "report": {}})
    assert len(due(jobs, job)) == 2
    post(jobs, job, 11)
    assert sweep(jobs, job) == 1
    assert len(due(jobs, job)) == 3  # with the pilot's settings, at once


def test_without_settings_there_is_nothing_to_follow_with(jobs: Jobs) -> None:
    """A pilot that fails ends the job; when it is run again, the job is of what it had."""
    job = follow(jobs, 2, "auto")
    (pilot,) = due(jobs, job, "calibrate")
    jobs.fail(jobs.claimed(pilot), permanent=True)
    assert (jobs.job(job).state, jobs.job(job).following) == ("failed", False)
    post(jobs, job, 10)
    assert sweep(jobs, job) == 0


def test_two_sweepers_give_a_checkpoint_to_one_shard(jobs: Jobs) -> None:
    job = follow(jobs, 1)
    post(jobs, job, *range(10, 20))

    def take(_: int) -> int:
        with jobs.session() as session:
            return following.take_in(session, job, SETTINGS)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, range(4))) == [0, 0, 0, 10]
    work(jobs, job)
    assert jobs.count(Result, job) == 11


def test_a_job_that_somebody_else_has_is_not_waited_for(jobs: Jobs) -> None:
    job = follow(jobs, 1)
    post(jobs, job, 10)
    with jobs.session() as session:
        store_jobs.lock(session, job)
        assert sweep(jobs, job) == 0
    assert sweep(jobs, job) == 1


def test_it_takes_in_no_more_than_its_tenant_has_room_for(jobs: Jobs) -> None:
    job = follow(jobs, 1)
    post(jobs, job, *range(10, 20))
    with jobs.session() as session:
        session.get_one(Tenant, jobs.tenant_id).max_queued_shards = 6  # of which its first and its stages are two
    assert sweep(jobs, job) == 4
    assert sweep(jobs, job) == 2  # two checkpoints are one shard
    assert [sweep(jobs, job) for _ in range(3)] == [1, 0, 0]
    work(jobs, job)
    assert sweep(jobs, job) == 3
    assert sweep(jobs, job) == 0
    work(jobs, job)
    assert jobs.count(Result, job) == 11
    post(jobs, job, *range(20, 40))
    end(jobs, job)  # which takes the rest
    work(jobs, job)
    assert jobs.count(Result, job) == 31


def test_what_is_found_while_the_stages_are_read_has_them_read_again(jobs: Jobs) -> None:
    job = follow(jobs, 1)
    jobs.finish(jobs.claimed(due(jobs, job)[0]))
    reading = jobs.claimed(due(jobs, job, "stages")[0])
    post(jobs, job, 10)
    sweep(jobs, job)
    jobs.finish(jobs.claimed(due(jobs, job)[0]))
    assert jobs.job(job).unread
    jobs.finish(reading)
    jobs.make_due(reading.shard_id)  # it waits for as long as the last one took
    assert work(jobs, job) == 1
    assert not jobs.job(job).unread


@pytest.mark.parametrize("when", ["before", "while it is measured", "while the stages are read"])
def test_its_end_waits_for_all_that_was_posted(jobs: Jobs, when: str) -> None:
    job = follow(jobs, 1)
    work(jobs, job)
    post(jobs, job, 10)
    if when != "before":
        sweep(jobs, job)
    if when == "while it is measured":
        measuring = jobs.claimed(due(jobs, job)[0])
        end(jobs, job)
        jobs.finish(measuring)
    elif when == "while the stages are read":
        jobs.finish(jobs.claimed(due(jobs, job)[0]))
        (stages,) = shards(jobs, job, "stages")
        jobs.make_due(stages)
        reading = jobs.claimed(stages)
        end(jobs, job)
        jobs.finish(reading)
        assert jobs.job(job).state == "succeeded"
        return
    else:
        end(jobs, job)
        assert jobs.job(job).state == "running"
        work(jobs, job, read=False)
    assert jobs.job(job).state == "running"
    (stages,) = shards(jobs, job, "stages")
    jobs.make_due(stages)
    assert work(jobs, job) == 1
    assert (jobs.job(job).state, jobs.count(Result, job)) == ("succeeded", 2)
    post(jobs, job, 11)
    assert sweep(jobs, job) == 0


def shards(jobs: Jobs, job: str, kind: str) -> list[str]:
    with jobs.session() as session:
        return list(session.scalars(select(Shard.id).where(Shard.job_id == job, Shard.kind == kind)))


def test_a_checkpoint_that_fails_fails_the_job_at_its_end_only(jobs: Jobs) -> None:
    job = follow(jobs, 1)
    jobs.fail(jobs.claimed(due(jobs, job)[0]), permanent=True)
    post(jobs, job, 10)
    sweep(jobs, job)
    assert work(jobs, job) == 1
    assert jobs.job(job).state == "running"
    end(jobs, job)
    assert jobs.job(job).state == "failed"
    error = jobs.job(job).error
    assert error is not None
    assert (error["code"], error["detail"]) == ("shards_failed", "1 of 3 shards failed")
    assert error["first"]["code"]
    with jobs.session() as session:
        store_jobs.retry(session, session.get_one(Job, job))
    work(jobs, job)
    assert (jobs.job(job).state, jobs.count(Result, job)) == ("succeeded", 2)


def test_a_cancelled_one_follows_no_longer(jobs: Jobs) -> None:
    job = follow(jobs, 1)
    work(jobs, job)
    jobs.cancel(job)
    assert jobs.job(job).state == "cancelled"
    post(jobs, job, 10)
    assert sweep(jobs, job) == 0
    end(jobs, job)
    assert jobs.events(job)[-1] == "job.cancelled"


def test_only_stages_that_failed_are_read_again(jobs: Jobs) -> None:
    """Of a job that doesn't follow: nothing else would bring them on."""
    job, all_shards = jobs.create(num_checkpoints=1)
    jobs.finish(jobs.claimed(all_shards[0]))
    jobs.fail(jobs.claimed(all_shards[-1]), permanent=True)
    assert jobs.job(job).state == "failed"
    with jobs.session() as session:
        store_jobs.retry(session, session.get_one(Job, job))
    assert work(jobs, job) == 1
    assert jobs.job(job).state == "succeeded"


# What is told of transitions ------------------------------------------------------------------------------------------


def transition(from_step: int, to_step: int, type: str | None = "A") -> dict[str, Any]:
    ends = {"from_step_low": from_step, "from_step_high": from_step, "to_step_low": to_step, "to_step_high": to_step}
    about = {"type": type, "from_step": from_step, "to_step": to_step, "delta_llc": -8.0 if type == "B" else 8.0}
    return stage() | {"id": new_id("stg")} | about | ends


def plateau(from_step: int, to_step: int) -> dict[str, Any]:
    return transition(from_step, to_step, None) | {"kind": "plateau"}


@pytest.fixture
def reads(jobs: Jobs) -> Callable[..., list[tuple[str, int]]]:
    """Reads stages of one following job; what was told then: (what, from_step)."""
    job, seen = follow(jobs, 1), [0]

    def again(*stages: dict[str, Any]) -> list[tuple[str, int]]:
        post(jobs, job, 10 * len(seen))
        sweep(jobs, job)
        work(jobs, job, read=False)
        (shard,) = shards(jobs, job, "stages")
        jobs.make_due(shard)
        read(jobs, jobs.claimed(shard), *stages)
        assert jobs.count(Stage, job) == len(stages)
        with jobs.session() as session:
            told = Event.job_id == job, Event.kind.like("transition.%"), Event.id > seen[-1]
            found = session.scalars(select(Event).where(*told).order_by(Event.id)).all()
            seen.append(max([seen[-1], *(event.id for event in found)]))
            return [(event.kind.removeprefix("transition."), event.data["from_step"]) for event in found]

    return again


def test_a_transition_is_told_of_once_when_training_has_gone_past_it(reads: Callable[..., Any]) -> None:
    assert reads(plateau(0, 5), transition(5, 20)) == []  # it may go on
    assert reads(plateau(0, 5), transition(5, 20) | {"to_step_high": 30}, plateau(20, 30)) == []
    assert reads(plateau(0, 5), transition(5, 20), plateau(20, 30)) == [("certain", 5)]
    assert reads(plateau(0, 6), transition(6, 22), plateau(22, 40)) == []  # the same
    assert reads(transition(6, 22), transition(40, 60, "B"), plateau(60, 70)) == [("certain", 40)]


def test_one_without_a_type_is_not_told_of(reads: Callable[..., Any]) -> None:
    assert reads(transition(5, 20, None), plateau(20, 30)) == []
    assert reads(transition(5, 20, "B"), plateau(20, 30)) == [("certain", 5)]


def test_one_that_is_gone_is_taken_back(reads: Callable[..., Any]) -> None:
    assert reads(transition(5, 20), plateau(20, 30)) == [("certain", 5)]
    assert reads(transition(5, 20, "B"), plateau(20, 40)) == [("withdrawn", 5), ("certain", 5)]
    assert reads(plateau(0, 40)) == [("withdrawn", 5)]
    assert reads(plateau(0, 50)) == []
    assert reads(transition(5, 20), plateau(20, 60)) == [("certain", 5)]


def test_neighbours_whose_intervals_overlap_are_told_of_each(reads: Callable[..., Any]) -> None:
    """A near-plateau between two rises, of which nobody knows well where it is."""
    first = transition(10, 100) | {"from_step_low": 8, "to_step_high": 400}
    second = transition(100, 1000) | {"from_step_low": 25, "to_step_high": 1100}
    assert reads(first, plateau(100, 2000)) == [("certain", 10)]
    assert reads(first, second, plateau(1000, 2000)) == [("certain", 100)]
    assert reads(transition(11, 100), transition(100, 1000), plateau(1000, 2000)) == []
    assert reads(plateau(0, 2000)) == [("withdrawn", 10), ("withdrawn", 100)]
