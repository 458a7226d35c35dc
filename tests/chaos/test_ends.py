"""How a job ends that does not go well: cancelled, with a file gone, with chains that explode."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import lambdahat
from lambdahat.objects import Job, Series
from lambdahat.stack import Stack
from tests.chaos.conftest import CHECKPOINTS

ENDLESS = {"llc": {"num_draws": 1_000_000, "batch_size": 16}}


def until_it_runs(client: lambdahat.Client, job: Job) -> None:
    deadline = time.monotonic() + 60
    while client.job(job).progress.done == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_cancel_stops_the_mathematics_within_seconds(stack: Stack, client: lambdahat.Client, series: Series) -> None:
    job = client.run(series, ENDLESS, checkpoints_per_shard=1)
    until_it_runs(client, job)
    busy = psutil.Process(stack.pids()["worker"]).children()
    asked = time.monotonic()
    client.cancel(job)
    ended = client.wait(job, poll=0.05, timeout=30)
    assert time.monotonic() - asked < 5
    assert ended.state == "cancelled"
    assert len(psutil.wait_procs(busy, timeout=5)[1]) < len(busy)
    assert list(client.results(job)) == []


@pytest.fixture
def missing(stack: Stack, client: lambdahat.Client, series: Series) -> Iterator[str]:
    """The SHA-256 of a checkpoint whose file is away for a while."""
    sha256 = next(client.list_checkpoints(series)).blob
    (path,) = (stack.root / "blobs").rglob(sha256)
    away = Path(f"{path}.away")
    path.rename(away)
    yield sha256
    away.rename(path)


def test_a_file_that_is_gone_is_named_and_the_rest_is_measured(
    client: lambdahat.Client, series: Series, missing: str
) -> None:
    job = client.wait(client.run(series, {"loss": {}, "llc": None}, checkpoints_per_shard=1), timeout=60)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["first"]["code"] == "blob_missing"
    assert missing in job.error["first"]["detail"]
    assert job.progress.shards["failed"] == 1
    measured = [result.step for result in client.results(job)]
    assert measured == list(range(1, CHECKPOINTS))


def test_chains_that_explode_are_a_result_with_a_reason(client: lambdahat.Client, series: Series) -> None:
    far_too_large = {"sampler": {"epsilon": 1e30}, "num_draws": 20, "num_burnin_steps": 10}
    job = client.wait(client.run(series, {"loss": {}, "llc": far_too_large}), timeout=60)
    assert job.state == "succeeded"
    for result in client.results(job):
        if result.measure == "llc":
            assert result.verdict == "diverged"
            assert "at step" in result.reason
            assert result.quantities["llc"].value is None
            assert result.quantities["llc"].std_error is None
        else:
            assert result.verdict == "ok"
            assert result.quantities["loss"].value is not None
    assert client.transitions(series, job) == []
