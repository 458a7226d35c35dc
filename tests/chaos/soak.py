"""`python -m tests.chaos.soak`: jobs under faults, and what became of them.

For every seed jobs of many shards run one after another, until so many faults have been inflicted at random; every
second one, and the first, follows a series that is posted meanwhile. Every job has to succeed, with exactly one result
for each checkpoint and measure, bit for bit that of a job that nobody disturbs, and with no more attempts than the
faults explain.
"""

import argparse
import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psycopg

import lambdahat
from lambdahat.objects import Job, Series
from tests.chaos.faults import FAULTS
from tests.chaos.world import LEASE_SECONDS, MEASURES, World, world

log = logging.getLogger(__name__)

JOB_SECONDS = 1800.0
MEND_SECONDS = LEASE_SECONDS + 10
"""By when a shard whose worker was killed has to be computed again."""


class ChaosError(AssertionError):
    """Something was lost, doubled or wrong."""


@dataclass
class Outcome:
    """Of one seed."""

    seed: int
    shards: int
    jobs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    """Of all shards, beyond the first."""
    explained: int = 0
    """By the faults, at most."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from a worker's death until what it computed was computed again."""
    seconds: float = 0.0
    error: str = ""
    """What was lost, doubled, wrong or late."""

    def line(self) -> str:
        """In words."""
        recovery = f"{max(self.recoveries):.1f} s" if self.recoveries else "–"
        return (
            f"seed {self.seed}: {self.jobs} jobs of {self.shards} shards, {sum(self.faults.values())} faults, "
            f"{self.attempts} more attempts (≤ {self.explained} explained), a killed worker's shards run again after "
            f"{recovery} at most; {self.seconds:.0f} s" + (f"\n    WRONG: {self.error}" if self.error else "")
        )


def numbers(world: World, job: Job) -> dict[tuple[int, str], Any]:
    """(step, measure) → all that was found, from the database."""
    rows = world.query(
        "SELECT c.step, r.measure, r.quantities, r.details, r.verdict, r.reason, r.draws"
        " FROM results r JOIN checkpoints c ON c.id = r.checkpoint_id WHERE r.job_id = %s",
        job.id,
    )
    found = {(step, measure): rest for step, measure, *rest in rows}
    if len(found) != len(rows):
        raise ChaosError(f"{len(rows) - len(found)} results are there twice")
    return found


def patiently(act: Any) -> Any:
    """Ask the API, or the database, which may be away for a while."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return act()
        except (lambdahat.LambdahatError, OSError, psycopg.OperationalError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def ended(world: World, job: Job) -> str | None:
    """The state of a job that has ended."""
    rows = world.query("SELECT state FROM jobs WHERE id = %s AND finished_at IS NOT NULL", job.id)
    return str(rows[0][0]) if rows else None


def wait(world: World, job: Job, seconds: float = JOB_SECONDS) -> None:
    """For its success. By the database straight, for the API may be away."""
    deadline = time.monotonic() + seconds
    while (state := _or_none(lambda: ended(world, job))) is None:
        if time.monotonic() > deadline:
            raise ChaosError(f"job {job.id} has not ended after {seconds:g} s: {shards(world, job)}")
        time.sleep(0.2)
    if state != "succeeded":
        raise ChaosError(f"job {job.id} {state}: {shards(world, job)}")


def shards(world: World, job: Job) -> list[Any]:
    """Those that have not succeeded."""
    return world.query(
        "SELECT id, state, attempt, error FROM shards WHERE job_id = %s AND state <> 'succeeded'", job.id
    )


def _or_none(act: Any) -> Any:
    try:
        return act()
    except Exception:
        return None


class Tormentor:
    """Inflicts faults, one after the other, while jobs run."""

    def __init__(self, world: World, random: Random, count: int, kinds: Sequence[str], outcome: Outcome) -> None:
        self._world, self._random, self._left, self._kinds = world, random, count, kinds
        self._outcome = outcome
        self._thread = threading.Thread(target=self._run)
        self.failure: BaseException | None = None
        self.stop = threading.Event()

    def __enter__(self) -> "Tormentor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            bag: list[str] = []
            while self._left and not self.stop.is_set():
                bag = bag or self._random.sample(list(self._kinds), len(self._kinds))
                name = bag.pop()
                self._inflict(name)
                self.stop.wait(self._random.uniform(0.2, 1.0) * LEASE_SECONDS)
        except BaseException as error:
            self.failure = error

    def _inflict(self, name: str) -> None:
        before = _or_none(self._running) or []
        start = time.monotonic()
        if not FAULTS[name].inflict(self._world, self._random):
            return
        log.info("%s, %.1f s", name, time.monotonic() - start)
        self._left -= 1
        self._outcome.faults[name] += 1
        self._outcome.explained += FAULTS[name].cost
        if name == "kill worker" and before:
            self._wait_for_recovery(before, start)

    def _running(self) -> list[tuple[Any, ...]]:
        return self._world.query("SELECT id, fence FROM shards WHERE state = 'running' AND lease_expires_at > now()")

    def _wait_for_recovery(self, before: list[tuple[Any, ...]], start: float) -> None:
        """Until every shard that ran is claimed again. Raises: ChaosError if that takes too long."""
        waiting = dict(before)
        while waiting:
            time.sleep(0.1)
            now = self._world.query("SELECT id, fence, state FROM shards WHERE id = ANY(%s)", list(waiting))
            for shard, fence, state in now:
                if fence != waiting[shard] or state == "succeeded":  # that was just before
                    del waiting[shard]
            if time.monotonic() - start > 2 * MEND_SECONDS:
                break
        self._outcome.recoveries.append(time.monotonic() - start)
        log.info("recovered %.1f s after the worker was killed", self._outcome.recoveries[-1])


def torment(
    world: World, series: Series, reference: dict[Any, Any], seed: int, count: int, kinds: Sequence[str]
) -> Outcome:
    """Jobs under faults, until so many have been inflicted."""
    outcome = Outcome(seed, len(reference) // len(MEASURES))
    start = time.monotonic()
    jobs: list[Job] = []
    try:
        with Tormentor(world, Random(seed), count, kinds, outcome) as tormentor:
            while not tormentor.is_done or len(jobs) < 2:
                is_live = len(jobs) % 2 == 0
                jobs.append(follow(world, outcome.shards) if is_live else patiently(lambda: world.run(series)))
                wait(world, jobs[-1])
                patiently(lambda: compare(world, jobs[-1], reference))
        if tormentor.failure:
            raise tormentor.failure
        outcome.attempts = sum(more_attempts(world, job) for job in jobs)
        check(outcome)
    except ChaosError as error:
        outcome.error = str(error)
    outcome.seconds, outcome.jobs = time.monotonic() - start, len(jobs)
    return outcome


def more_attempts(world: World, job: Job) -> int:
    """Than shards."""
    ((more,),) = world.query("SELECT sum(attempt) - count(*) FROM shards WHERE job_id = %s", job.id)
    return int(more)


def check(outcome: Outcome) -> None:
    """Raises: ChaosError, if it took too much or too long."""
    if outcome.attempts > outcome.explained:
        raise ChaosError(f"{outcome.attempts} attempts more than shards, of which faults explain {outcome.explained}")
    if max(outcome.recoveries, default=0.0) > MEND_SECONDS:
        raise ChaosError(f"a killed worker's shards ran again only after {max(outcome.recoveries):.1f} s")


def compare(world: World, job: Job, reference: dict[Any, Any]) -> None:
    """Hold a job's results to the undisturbed ones. Raises: ChaosError."""
    found = numbers(world, job)
    if found.keys() != reference.keys():
        raise ChaosError(
            f"missing: {sorted(reference.keys() - found.keys())[:5]}, too many: "
            f"{sorted(found.keys() - reference.keys())[:5]}"
        )
    wrong = [key for key in reference if found[key] != reference[key]]
    if wrong:
        raise ChaosError(f"{len(wrong)} of {len(reference)} results differ, the first: {wrong[0]}")


def follow(world: World, count: int) -> Job:
    """A job that follows a series while so many checkpoints are posted to it, and no longer."""
    series = patiently(world.new_series)
    job = patiently(lambda: world.run(series, follow=True))
    for step, state in enumerate(world.states(count)):
        patiently(partial(world.client.add_checkpoint, series, step, state))
    every = patiently(lambda: world.query("SELECT id FROM jobs WHERE following"))  # more, if an answer was lost
    for (following,) in every:
        patiently(partial(world.client.finish, following))
    return patiently(lambda: world.client.job(job))


def undisturbed(world: World, series: Series) -> dict[Any, Any]:
    """What a job finds that nobody disturbs."""
    job = world.run(series)
    wait(world, job)
    return numbers(world, job)


def main() -> int:
    """The number of seeds at which something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=200, help="checkpoints of the series, one a shard")
    parser.add_argument("--faults", type=int, default=60, help="of every seed")
    parser.add_argument("--only", default="", metavar="NAMES", help="of faults, commas between them")
    parser.add_argument("--out", type=Path, help="JSON lines of what became of every seed, added to")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    kinds = [name.strip() for name in arguments.only.split(",") if name.strip()] or list(FAULTS)
    wrong = 0
    with world() as broken:
        series = broken.series(arguments.shards)
        reference = undisturbed(broken, series)
        print(f"{len(reference)} results of {arguments.shards} shards, undisturbed", flush=True)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            outcome = torment(broken, series, reference, seed, arguments.faults, kinds)
            print(outcome.line(), flush=True)
            wrong += bool(outcome.error)
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(json.dumps(vars(outcome)) + "\n")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
