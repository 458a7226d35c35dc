"""The database's clock is set back, or forward. (For real, with jobs running: tests/chaos.)"""

import time

import pytest
from sqlalchemy import text

from store import leases
from store.clock import Clock, straighten
from tests.store.test_leases import LEASE, Jobs, jobs

__all__ = ["jobs"]


def set_clock_back(jobs: Jobs, shards: list[str]) -> None:
    """All that is in the database is an hour later now, which is the same."""
    with jobs.session() as session:
        session.execute(
            text(
                "UPDATE shards SET run_at = run_at + '1 hour'::interval,"
                " lease_expires_at = lease_expires_at + '1 hour'::interval,"
                " dispatched_at = dispatched_at + '1 hour'::interval WHERE id = ANY(:shards) AND run_at < '5000-01-01'"
            ),
            {"shards": shards},
        )


def test_a_clock_that_is_set_back_delays_no_work(jobs: Jobs) -> None:
    _, shards = jobs.create(num_checkpoints=6, per_shard=2)
    with jobs.session() as session:
        leases.dispatch(session, "auto", 60.0, 100_000)
    jobs.claimed(shards[0])
    jobs.fail(jobs.claimed(shards[1]))
    set_clock_back(jobs, shards)
    assert jobs.claim(shards[2]) is None
    with jobs.session() as session:
        straighten(session, LEASE)
        hinted = {hint.shard_id for hint in leases.dispatch(session, "auto", 60.0, 100_000)}
    assert hinted & set(shards) == {shards[1], shards[2]}
    assert jobs.claim(shards[2]) is not None
    assert jobs.claim(shards[3]) is None  # the stages still wait
    jobs.expire(shards[0])


def test_what_lies_where_it_should_is_left_alone(jobs: Jobs) -> None:
    _, shards = jobs.create()
    jobs.claimed(shards[0])
    jobs.fail(jobs.claimed(shards[1]))
    before = [(shard.run_at, shard.lease_expires_at) for shard in map(jobs.shard, shards)]
    with jobs.session() as session:
        straighten(session, LEASE)
    assert [(shard.run_at, shard.lease_expires_at) for shard in map(jobs.shard, shards)] == before


@pytest.mark.parametrize(("ahead", "is_left"), [("19 minutes", True), ("21 minutes", False), ("10 years", False)])
def test_the_pause_after_a_reading_is_as_long_as_that_took(jobs: Jobs, ahead: str, is_left: bool) -> None:
    """Read for twenty minutes, of which the pause has begun; the clock may have been set back since."""
    _, shards = jobs.create()
    with jobs.session() as session:
        session.execute(
            text(
                "UPDATE shards SET run_at = now() + cast(:ahead AS interval),"
                " started_at = now() + cast(:ahead AS interval) - interval '40 minutes' WHERE id = :last"
            ),
            {"ahead": ahead, "last": shards[-1]},
        )
    before = jobs.shard(shards[-1]).run_at
    with jobs.session() as session:
        straighten(session, LEASE)
    assert (jobs.shard(shards[-1]).run_at == before) == is_left


def test_a_clock_that_nobody_sets_is_steady(jobs: Jobs) -> None:
    clock = Clock()
    with jobs.session() as session:
        assert all(clock.is_steady(session, LEASE) for _ in range(3))


def test_a_clock_that_was_set_is_not_steady_for_a_while(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ours, halted = Clock(), time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: ours() - halted)
    with jobs.session() as session:
        assert clock.is_steady(session, LEASE)
        halted = 3600.0  # the machine, while the database's went on: as if that one had been set
        assert not clock.is_steady(session, LEASE)
        assert not clock.is_steady(session, LEASE)
        time.sleep(0.2)
        assert not clock.is_steady(session, LEASE)
        assert clock.is_steady(session, 0.1)
