"""What workers and the sweeper log: one JSON object a line, each of a shard's with its job, and an outage once."""

import contextlib
import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from store.logs import Outage
from tests.api.lab import Lab
from tests.chaos.proxy import database_through, in_front_of_database
from tests.receiver import eventually
from tests.worker.programs import process
from worker.process import ChildDiedError, ChildProcess

Lines = list[dict[str, Any]]


def lines(path: Path) -> Lines:
    """Every line is an object, or this fails."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert all({"event", "level", "timestamp", "logger"} <= set(line) for line in found)
    return found


@pytest.mark.usefixtures("no_other_work")
def test_a_jobs_lines_are_found_from_the_request_that_posted_it_and_an_outage_is_two_lines(
    lab: Lab, series: str, database_url: str, broker_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as ending:
        database = ending.enter_context(in_front_of_database(database_url))
        environment = os.environ | {
            "LAMBDAHAT_DATABASE_URL": database_through(database, database_url),
            "LAMBDAHAT_BROKER_URL": broker_url,
            "LAMBDAHAT_BLOB_DIR": str(lab.blob_dir),
            "LAMBDAHAT_SWEEP_SECONDS": "0.05",
        }
        logs = {name: tmp_path / name for name in ("worker", "sweeper")}
        ending.enter_context(process("worker --device cpu --concurrency 1", logs["worker"], environment))
        ending.enter_context(process("worker.sweeper", logs["sweeper"], environment))
        with caplog.at_level("INFO"):
            body = {"series": series, "measures": {"loss": {}, "llc": None}}
            posted = lab.post("/v1/jobs", json=body, headers={"X-Request-Id": "post-1"}).json()["id"]
        eventually(lambda: lab.get(f"/v1/jobs/{posted}").json()["state"] == "succeeded", 60)
        with database.being("refuse"):
            eventually(lambda: "database_away" in logs["sweeper"].read_text(), 10)
            time.sleep(1)  # twenty sweeps
        eventually(lambda: "database_back" in logs["sweeper"].read_text(), 10)

    (said,) = [r.msg for r in caplog.records if isinstance(r.msg, dict) and r.msg.get("event") == "job_posted"]
    assert (said["request_id"], said["job"]) == ("post-1", posted)

    worker = [line for line in lines(logs["worker"]) if line.get("job") == posted]
    kinds = [(line["event"], line["attempt"]) for line in worker if line["event"].startswith("shard_")]
    assert kinds == [("shard_started", 1), ("shard_succeeded", 1)] * 2  # its measures, then its stages
    assert {line["shard"] for line in worker} == {
        event["data"]["shard"]
        for event in lab.get(f"/v1/jobs/{posted}/events").json()["data"]
        if "shard" in event["data"]
    }
    assert [line for line in lines(logs["worker"]) if line["logger"].startswith("celery")]

    outage = [line["event"] for line in lines(logs["sweeper"]) if line["event"].startswith("database_")]
    assert outage == ["database_away", "database_back"]


def test_the_last_words_of_a_child_are_logged_with_its_shard_and_shown_as_they_were() -> None:
    with capture_logs() as said, structlog.contextvars.bound_contextvars(shard="shd_1", job="job_1"):
        child = ChildProcess(memory_bytes=2**26)  # too little to import anything with
        with contextlib.suppress(ChildDiedError):  # which the next line tells
            child.send({})
        with pytest.raises(ChildDiedError) as died:
            child.receive(60)
        child.kill()
    words = [line for line in said if line["event"] == "child_says"]
    assert words
    assert words[-1]["line"] in str(died.value)
    assert {line["child"] for line in words} == {child.pid}
    assert "{" not in str(died.value).partition(": ")[2][:1]


def test_an_outage_is_said_again_after_it_ended() -> None:
    with capture_logs() as said:
        outage = Outage("broker")
        outage.back()
        for _ in range(2):
            for _ in range(3):
                outage.away(httpx.ConnectError("refused\nwith more"))
            outage.back()
            outage.back()
    assert [line["event"] for line in said] == ["broker_away", "broker_back"] * 2
    assert said[0]["reason"] == "refused"
