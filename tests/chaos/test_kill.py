"""kill -9 in the middle of a job: the child, the worker, Valkey. The job ends all the same, with exactly one result for
each checkpoint and measure, and with the numbers of a job that nobody disturbed.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import lambdahat
from lambdahat.objects import Job, Result, Series
from lambdahat.stack import Stack
from tests.chaos.conftest import CHECKPOINTS

MEASURES = {
    "loss": {},
    "llc": {"batch_size": 16, "num_burnin_steps": 50, "num_draws": 800, "gamma": 10.0, "sampler": {"epsilon": 1e-3}},
}


def run(client: lambdahat.Client, series: Series) -> Job:
    return client.run(series, MEASURES, checkpoints_per_shard=1)


@pytest.fixture(scope="module")
def undisturbed(client: lambdahat.Client, series: Series) -> dict[tuple[int, str], Any]:
    """What a job finds that nobody disturbs."""
    job = client.wait(run(client, series), timeout=120)
    assert job.state == "succeeded"
    return found(client, job)


def found(client: lambdahat.Client, job: Job) -> dict[tuple[int, str], Any]:
    """(step, measure) → everything that was measured there, once."""
    results: list[Result] = list(client.results(job))
    numbers = {(r.step, r.measure): (r.quantities, r.details, r.verdict, r.draws) for r in results}
    assert len(numbers) == len(results) == CHECKPOINTS * len(MEASURES)
    return numbers


def test_shards_and_added_chains_change_no_number(
    client: lambdahat.Client, series: Series, undisturbed: dict[tuple[int, str], Any]
) -> None:
    together = client.wait(client.run(series, MEASURES, checkpoints_per_shard=CHECKPOINTS), timeout=120)
    more = {**MEASURES, "llc": {**MEASURES["llc"], "num_chains": 5}}
    with_a_chain = client.wait(client.run(series, more, checkpoints_per_shard=3), timeout=120)
    for job in (together, with_a_chain):
        for (step, measure), (quantities, details, *_) in found(client, job).items():
            if measure == "llc":
                one_percent = 0.01 * undisturbed[step, "llc"][0]["llc"].std_error
                chains = undisturbed[step, "llc"][1]["per_chain"]
                assert details["per_chain"][:4] == pytest.approx(chains, abs=one_percent, rel=0)
            else:
                assert quantities == undisturbed[step, measure][0]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def computing(stack: Stack) -> list[int]:
    """Children that do mathematics now."""
    try:
        children = psutil.Process(stack.pids()["worker"]).children()
        return [child.pid for child in children if "worker.child" in " ".join(child.cmdline())]
    except (KeyError, psutil.NoSuchProcess):
        return []  # the worker is between two lives


def kill_a_child(stack: Stack) -> None:
    kill(computing(stack)[-1])


def kill_the_worker(stack: Stack) -> None:
    children = computing(stack)
    kill(stack.pids()["worker"])
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in children if psutil.pid_exists(pid)], timeout=5)
    assert not alive, "the children outlived their worker"


def kill_valkey(stack: Stack) -> None:
    kill(stack.pids()["valkey"])


def kill_the_sweeper(stack: Stack) -> None:
    kill(stack.pids()["sweeper"])


def kill_postgres(stack: Stack) -> None:
    kill(stack.pids()["postgres"])


@pytest.mark.parametrize(
    "faults",
    [
        [kill_a_child],
        [kill_the_worker],
        [kill_valkey],
        [kill_postgres],
        [kill_a_child, kill_the_sweeper, kill_the_worker, kill_valkey],
    ],
    ids=lambda faults: ", ".join(fault.__name__ for fault in faults),
)
def test_a_job_survives(
    stack: Stack,
    client: lambdahat.Client,
    series: Series,
    undisturbed: dict[tuple[int, str], Any],
    faults: list[Callable[[Stack], None]],
) -> None:
    job = run(client, series)
    for fault in faults:
        deadline = time.monotonic() + 60
        while True:  # in the middle: something runs now, and something is still to do
            now = client.job(job)
            assert not now.is_finished, "the job ended before the fault"
            assert time.monotonic() < deadline
            if now.progress.shards["running"] and computing(stack):
                break
            time.sleep(0.05)
        fault(stack)
    ended = client.wait(job, timeout=120)
    assert ended.state == "succeeded", ended.error
    assert found(client, ended) == undisturbed
