"""Server-sent events: all of them, in order, at once, and none missed by who comes back."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

import lambdahat
from store import jobs, leases
from store.tables import Job, Shard
from tests.api.lab import Lab, refused

STREAM = {"Accept": "text/event-stream"}
STREAMS = 200


@pytest.fixture
def series(lab: Lab) -> str:
    series = lab.series()
    for step in range(3):
        lab.checkpoint(series, step)
    return series


def messages(response: httpx.Response) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if not line and fields:
            yield fields
            fields = {}
        elif name and line:
            fields[name] = value


def skip_to(told: Iterator[dict[str, str]], kind: str) -> None:
    """Hear messages up to the next of this kind."""
    while next(told).get("event") != kind:
        pass


def events(found: list[dict[str, str]]) -> list[tuple[int, str]]:
    return [(int(message["id"]), message["event"]) for message in found if "id" in message]


def listed(lab: Lab, job: str) -> list[tuple[int, str]]:
    return [(event["id"], event["kind"]) for event in lab.get(f"/v1/jobs/{job}/events").json()["data"]]


def run_a_shard(lab: Lab, job: str) -> bool:
    """The next one, without results; whether there was one."""
    with Session(lab.engine) as session, session.begin():
        due = select(Shard.id).where(Shard.job_id == job, Shard.state == "queued", Shard.run_at <= func.now())
        shard = session.scalars(due.limit(1)).first()
        lease = shard and leases.claim(session, shard, "worker", 30)
        if not lease:
            return False
        leases.finish(session, lease)
        return True


def test_a_stream_tells_everything_and_ends_with_the_job(lab: Lab, series: str) -> None:
    job = lab.job(series, checkpoints_per_shard=1)
    with lab.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        found = []
        for message in messages(response):
            found.append(message)
            run_a_shard(lab, job)
    assert events(found) == listed(lab, job)
    assert events(found)[-1][1] == "job.succeeded"
    assert json.loads(next(m for m in found if "id" in m)["data"])["kind"] == "job.queued"
    progress = [json.loads(message["data"]) for message in found if message.get("event") == "progress"]
    assert progress
    assert progress[-1]["shards"]["succeeded"] >= 1


def test_it_tells_at_once(lab: Lab, series: str) -> None:
    job = lab.job(series, checkpoints_per_shard=1)
    with lab.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as response:
        told = messages(response)
        skip_to(told, "job.queued")
        time.sleep(0.3)  # nothing happens
        for _ in range(3):
            start = time.monotonic()
            run_a_shard(lab, job)
            skip_to(told, "shard.succeeded")
            assert time.monotonic() - start < 1.0


def test_who_comes_back_misses_nothing_and_hears_nothing_twice(lab: Lab, series: str) -> None:
    job = lab.job(series, checkpoints_per_shard=1)
    heard: list[tuple[int, str]] = []
    while True:
        last = {"Last-Event-ID": str(heard[-1][0])} if heard else {}
        with lab.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM | last) as response:
            if response.status_code == 204:
                break
            for message in messages(response):  # one, and gone
                if "id" in message:
                    heard.append((int(message["id"]), message["event"]))
                    break
        run_a_shard(lab, job)
    assert heard == listed(lab, job)
    assert len(heard) == 10


def test_a_stream_outlives_the_connection_that_listens(lab: Lab, series: str) -> None:
    job = lab.job(series, checkpoints_per_shard=1)
    with lab.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as response:
        told = messages(response)
        skip_to(told, "job.queued")
        with Session(lab.engine) as session:
            killed = session.scalar(
                text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            )
            assert killed
        while run_a_shard(lab, job):
            pass
        assert [m["event"] for m in told if "id" in m][-1] == "job.succeeded"


def test_the_client_follows_a_job(lab: Lab, series: str) -> None:
    job = lab.job(series, checkpoints_per_shard=1)

    def work() -> None:
        while run_a_shard(lab, job):
            time.sleep(0.05)

    with lambdahat.Client(str(lab.base_url), lab.api_key) as client:
        thread = threading.Thread(target=work)
        thread.start()
        found = [(event.id, event.kind) for event in client.follow(job)]
        thread.join()
        assert found == listed(lab, job)
        assert [event.id for event in client.follow(job, after=found[3][0])] == [number for number, _ in found[4:]]


def test_a_job_that_is_deleted_meanwhile_ends_its_streams(lab: Lab, series: str) -> None:
    job = lab.job(series)
    with lab.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as response:
        told = messages(response)
        skip_to(told, "job.queued")
        with Session(lab.engine) as session, session.begin():
            session.delete(session.get_one(Job, job))
        assert [message for message in told if "id" in message] == []


def test_another_tenants_stream_is_not_there(lab: Lab, other_lab: Lab, series: str) -> None:
    job = lab.job(series)
    refused(other_lab.get(f"/v1/jobs/{job}/events", headers=STREAM), 404, "not_found")


@pytest.mark.parametrize("last", ["x", "-1", str(2**63)])
def test_a_made_up_last_event_is_refused(lab: Lab, series: str, last: str) -> None:
    job = lab.job(series)
    refused(lab.get(f"/v1/jobs/{job}/events", headers=STREAM | {"Last-Event-ID": last}), 422, "invalid_request")


def test_two_hundred_streams_are_open_and_the_rest_is_answered(lab: Lab, series: str) -> None:
    job = lab.job(series, checkpoints_per_shard=1)

    async def listen(client: httpx.AsyncClient, ready: asyncio.Semaphore) -> list[str]:
        heard: list[str] = []
        async with client.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as response:
            async for line in response.aiter_lines():
                if line.startswith("event: ") and "progress" not in line:
                    heard.append(line.removeprefix("event: "))
                    if len(heard) == 1:
                        ready.release()
        return heard

    async def everybody() -> list[list[str]]:
        headers = {"Authorization": f"Bearer {lab.api_key}"}
        limits = httpx.Limits(max_connections=STREAMS + 1)
        async with httpx.AsyncClient(base_url=lab.base_url, headers=headers, limits=limits, timeout=60) as client:
            ready = asyncio.Semaphore(0)
            listening = [asyncio.create_task(listen(client, ready)) for _ in range(STREAMS)]
            for _ in range(STREAMS):
                await ready.acquire()
            while await asyncio.to_thread(run_a_shard, lab, job):
                assert (await client.get(f"/v1/jobs/{job}")).status_code == 200
            return list(await asyncio.gather(*listening))

    found = asyncio.run(everybody())
    expected = [kind for _, kind in listed(lab, job)]
    assert found == [expected] * STREAMS


def test_what_is_announced_is_there_for_who_looks(lab: Lab, series: str) -> None:
    """Events of a job are committed in the order of their ids: the lock on its row is held from one to the next."""
    job = lab.job(series)
    with Session(lab.engine) as first, Session(lab.engine) as second, first.begin():
        jobs.lock(first, job)
        jobs.event(first, job, "job.first", {})
        second.execute(text("SET lock_timeout = '200ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            jobs.lock(second, job)
