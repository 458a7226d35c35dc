"""A child that dies, hangs or takes too much: the attempt ends with a name, and the next one goes on where it was."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from safetensors import safe_open
from sqlalchemy import Engine, func, update
from sqlalchemy.orm import Session

from llc.progress import METADATA
from store.blobs import BlobStore
from store.settings import StoreSettings
from store.tables import Shard
from tests.api.lab import Lab
from tests.worker.conftest import STEPS
from worker.limits import NICENESS
from worker.supervisor import Supervisor

CHAINS, BURNIN, DRAWS = 2, 10, 2_500
LONG = {"llc": {"num_chains": CHAINS, "num_burnin_steps": BURNIN, "num_draws": DRAWS, "batch_size": 4}, "loss": None}
ALL_WORK = CHAINS * (BURNIN + DRAWS) * len(STEPS)


@contextmanager
def supervising(lab: Lab, database_url: str, broker_url: str, **limits: Any) -> Iterator[Supervisor]:
    settings = StoreSettings(database_url=database_url, broker_url=broker_url, blob_dir=lab.blob_dir, **limits)
    supervisor = Supervisor(settings)
    yield supervisor
    supervisor.stop()


def shard_of(engine: Engine, job: str) -> Shard:
    """The one that measures."""
    with Session(engine) as session:
        return session.query(Shard).filter_by(job_id=job, kind="measure").one()


def due_now(engine: Engine, shard: Shard) -> None:
    """Without the pause before another attempt."""
    with Session(engine) as session, session.begin():
        session.execute(update(Shard).where(Shard.id == shard.id).values(run_at=func.now()))


def until(what: str, *, is_true: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := is_true():
            return found
        time.sleep(0.01)
    raise AssertionError(f"never: {what}")


def children() -> list[psutil.Process]:
    """Ours that do mathematics."""
    return [child for child in psutil.Process().children() if "worker.child" in " ".join(child.cmdline())]


@contextmanager
def running(supervisor: Supervisor, shard: Shard) -> Iterator[psutil.Process]:
    """The child that computes a shard, which has ended afterwards."""
    before = children()
    with ThreadPoolExecutor(1) as thread:
        ending = thread.submit(supervisor.run, shard.id)
        (child,) = until("a child", is_true=lambda: [child for child in children() if child not in before])
        yield child
        ending.result(timeout=60)


def row_steps(path: Path) -> int:
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()[METADATA])["row_steps"]


def numbers(lab: Lab, job: str) -> list[Any]:
    found = lab.get(f"/v1/jobs/{job}/results").json()["data"]
    assert found, shard_of(lab.engine, job).error
    assert len(found) == len(STEPS)
    return [(row["step"], row["quantities"], row["details"], row["draws"]) for row in found]


def test_a_killed_shard_goes_on_where_it_was_and_ends_the_same(
    lab: Lab, series: str, database_url: str, broker_url: str
) -> None:
    job, again = (lab.job(series, measures=LONG) for _ in range(2))
    shard = shard_of(lab.engine, job)
    with supervising(lab, database_url, broker_url, save_seconds=0.2, heartbeat_seconds=0.05) as supervisor:
        saved = BlobStore(lab.blob_dir).saved(shard.id)
        with running(supervisor, shard) as child:
            until("half is saved", is_true=lambda: saved.exists() and row_steps(saved) > ALL_WORK / 3)
            assert child.nice() == psutil.Process().nice() + NICENESS  # what answers requests comes first
            assert os.getsid(child.pid) == child.pid
            autogroup = Path(f"/proc/{child.pid}/autogroup")
            assert not autogroup.exists() or autogroup.read_text().endswith(f"nice {NICENESS}\n")
            child.kill()
        then = row_steps(saved)
        assert then < ALL_WORK
        killed = shard_of(lab.engine, job)
        assert (killed.state, killed.attempt) == ("queued", 1)
        assert killed.error is not None
        assert killed.error["code"] == "child_died"
        due_now(lab.engine, shard)
        with running(supervisor, shard):
            done = until("progress", is_true=lambda: shard_of(lab.engine, job).work_done)
            assert done >= then
        assert shard_of(lab.engine, job).state == "succeeded"
        assert not saved.exists()
    with supervising(lab, database_url, broker_url) as supervisor:
        supervisor.run(shard_of(lab.engine, again).id)
    assert numbers(lab, job) == numbers(lab, again)


def test_a_child_that_hangs_is_ended(lab: Lab, series: str, database_url: str, broker_url: str) -> None:
    shard = shard_of(lab.engine, lab.job(series, measures=LONG))
    with supervising(lab, database_url, broker_url, silence_seconds=20) as supervisor:
        with running(supervisor, shard) as child:
            until("work", is_true=lambda: shard_of(lab.engine, shard.job_id).work_done)
            os.kill(child.pid, signal.SIGSTOP)
        assert not child.is_running()
    ended = shard_of(lab.engine, shard.job_id)
    assert (ended.state, ended.attempt) == ("queued", 1)
    assert ended.error == {"code": "child_silent", "detail": "nothing was heard of it for 20 s", "hint": ""}


def test_an_attempt_has_a_time_limit(lab: Lab, series: str, database_url: str, broker_url: str) -> None:
    shard = shard_of(lab.engine, lab.job(series, measures={**LONG, "llc": {**LONG["llc"], "num_draws": 1_000_000}}))
    with supervising(lab, database_url, broker_url, attempt_seconds=2) as supervisor:
        supervisor.run(shard.id)
    ended = shard_of(lab.engine, shard.job_id)
    assert ended.error is not None
    assert ended.error["code"] == "too_long"


def test_memory_that_it_may_not_have_is_an_error_with_a_name_and_a_hint(
    lab: Lab, series: str, database_url: str, broker_url: str
) -> None:
    huge = {"llc": {"num_chains": 64, "num_burnin_steps": 0, "num_draws": 1_000_000, "batch_size": 4}, "loss": None}
    job = lab.job(series, measures=huge)
    with supervising(lab, database_url, broker_url, memory_bytes=700 * 2**20) as supervisor:
        supervisor.run(shard_of(lab.engine, job).id)
    shard = shard_of(lab.engine, job)
    assert (shard.state, shard.attempt) == ("failed", 1)  # once is enough
    assert shard.error is not None
    assert shard.error["code"] == "out_of_memory"
    assert "LAMBDAHAT_MEMORY_BYTES" in shard.error["hint"]
    assert lab.get(f"/v1/jobs/{job}").json()["error"]["first"]["code"] == "out_of_memory"


def test_a_worker_that_is_asked_to_end_has_its_child_save_what_it_computed(
    lab: Lab, series: str, database_url: str, broker_url: str
) -> None:
    job, again = (lab.job(series, measures=LONG) for _ in range(2))
    shard = shard_of(lab.engine, job)
    saved = BlobStore(lab.blob_dir).saved(shard.id)
    with (
        supervising(lab, database_url, broker_url, save_seconds=1e6, heartbeat_seconds=0.05) as supervisor,
        running(supervisor, shard),
    ):
        told = until("half is done", is_true=lambda: (d := shard_of(lab.engine, job).work_done) > ALL_WORK / 3 and d)
        assert not saved.exists()
        supervisor.stop()
    released = shard_of(lab.engine, job)
    assert (released.state, released.attempt, released.error) == ("queued", 0, None)
    assert told <= row_steps(saved) < ALL_WORK
    with supervising(lab, database_url, broker_url) as supervisor:
        supervisor.run(shard.id)
        supervisor.run(shard_of(lab.engine, again).id)
    assert shard_of(lab.engine, job).state == "succeeded"
    assert numbers(lab, job) == numbers(lab, again)


def test_an_idle_child_that_was_killed_costs_nobody_an_attempt(
    lab: Lab, series: str, database_url: str, broker_url: str
) -> None:
    jobs = [lab.job(series, measures={"loss": {}, "llc": None}) for _ in range(2)]
    with supervising(lab, database_url, broker_url) as supervisor:
        before = children()
        supervisor.run(shard_of(lab.engine, jobs[0]).id)
        (idle,) = [child for child in children() if child not in before]
        idle.kill()
        until("its end", is_true=lambda: idle.status() == psutil.STATUS_ZOMBIE if idle.is_running() else True)
        supervisor.run(shard_of(lab.engine, jobs[1]).id)
    shard = shard_of(lab.engine, jobs[1])
    assert (shard.state, shard.attempt) == ("succeeded", 1)


@pytest.mark.parametrize("answered", [False, True])
def test_a_claim_whose_answer_was_lost_is_given_back(
    lab: Lab, series: str, database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """The connection breaks at the commit: before it took place, or after."""
    shard = shard_of(lab.engine, lab.job(series, measures={"loss": {}, "llc": None}))
    with supervising(lab, database_url, broker_url) as supervisor:
        commits = 0
        commit = psycopg.Connection.commit

        def broken(connection: Any) -> None:
            nonlocal commits
            commits += 1
            if commits > 1:
                return commit(connection)
            if answered:
                commit(connection)
            connection.pgconn.finish()
            raise psycopg.OperationalError("the connection is lost")

        monkeypatch.setattr("psycopg.Connection.commit", broken)
        supervisor.run(shard.id)
    found = shard_of(lab.engine, shard.job_id)
    assert (found.state, found.attempt, found.lease_owner) == ("queued", 0, None)
