"""How the service does under load, on this machine, with its database: docs/load.md.

python -m bench.load            (needs wrk: apt install wrk)

Reads of every kind at 200 a second while a job runs, with few and with many results in the database, and with 200 open
event streams; a curve of 2 000 checkpoints × 10 measures; an upload of 2 GB, and the API's memory meanwhile.
"""

import argparse
import asyncio
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import psutil
import psycopg

import lambdahat
from lambdahat.objects import Job, Series
from lambdahat.stack import Stack

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "load.md"

APIS = 2
CONNECTIONS = 25  # each asks again after .1 s on average, at random
STREAMS = 200
WARM_UP_SECONDS = 5
MEASURES = 10
CURVE_CHECKPOINTS = 2000
CHECKPOINTS = 1000
"""Of each of the series that fill the database."""

FILL = """
WITH made AS (
    INSERT INTO series (id, tenant_id, name, model_id, dataset_id)
    SELECT 'ser_' || md5('load' || %(number)s), tenant_id, 'load ' || %(number)s, model_id, dataset_id
    FROM series WHERE id = %(like)s RETURNING *
), posted AS (
    INSERT INTO checkpoints (id, tenant_id, series_id, step, blob)
    SELECT 'ckp_' || md5(m.id || step), m.tenant_id, m.id, step, (SELECT blob FROM checkpoints LIMIT 1)
    FROM made m, generate_series(1, %(checkpoints)s) step RETURNING *
), job AS (
    INSERT INTO jobs (id, tenant_id, series_id, settings, state, started_at, finished_at)
    SELECT 'job_' || md5(m.id), m.tenant_id, m.id, j.settings, 'succeeded', now(), now()
    FROM made m, (SELECT settings FROM jobs LIMIT 1) j RETURNING *
), shard AS (
    INSERT INTO shards (id, job_id, ordinal, checkpoint_ids, state)
    SELECT 'shd_' || md5(id), id, 0, '[]', 'succeeded' FROM job RETURNING *
)
INSERT INTO results (job_id, checkpoint_id, measure, shard_id, fence, quantities, details, verdict, reason)
SELECT s.job_id, p.id, 'measure_' || measure, s.id, 1,
       jsonb_build_object('quantity_' || measure, jsonb_build_object('value', random(), 'std_error', random())),
       '{"r_hat": 1.01, "ess": 512.5}', 'ok', ''
FROM shard s, posted p, generate_series(1, %(measures)s) measure
"""


@dataclass
class Figures:
    """What was measured, a line of the table each."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, found: str, goal: str = "") -> None:
        self.rows.append((what, found, goal))
        print(f"{what}: {found}" + (f"   (goal: {goal})" if goal else ""), flush=True)


class Bench:
    """The stack, with a series to run jobs on, and a connection to its database."""

    def __init__(self, stack: Stack, client: lambdahat.Client, database: psycopg.Connection) -> None:
        self.stack, self.client, self.database = stack, client, database
        self.series = self._series()
        self.filled = 0

    def _series(self) -> Series:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((500, 8)).astype(np.float32)
        dataset = self.client.create_dataset("points", x=x, y=(x.sum(1) > 0).astype(np.int64))
        model = self.client.create_model("small", {"family": "mlp", "widths": [8, 16, 2], "activation": "tanh"})
        series = self.client.create_series("a run", model, dataset)
        shapes = {"layers.0.weight": (16, 8), "layers.0.bias": (16,), "layers.1.weight": (2, 16), "layers.1.bias": (2,)}
        for step in range(20):
            state = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
            self.client.add_checkpoint(series, step, state)
        self.client.wait(self.client.run(series, {"loss": {}}))
        return series

    def fill(self, checkpoints: int) -> str:
        """Another series with results of all its checkpoints; its id."""
        self.filled += 1
        values = {"number": self.filled, "like": self.series.id, "checkpoints": checkpoints, "measures": MEASURES}
        self.database.execute(FILL, values)
        self.database.execute("ANALYZE")  # as PostgreSQL does by itself, a minute later
        self.database.commit()
        return "ser_" + hashlib.md5(f"load{self.filled}".encode(), usedforsecurity=False).hexdigest()

    @contextmanager
    def running(self) -> Iterator[Job]:
        """A job that does not end by itself."""
        job = self.client.run(self.series, {"loss": {}, "llc": {"num_draws": 1_000_000}}, checkpoints_per_shard=1)
        while self.client.job(job).progress.done == 0:
            time.sleep(0.2)
        yield job
        self.client.wait(self.client.cancel(job))

    def reads(self, job: Job, filled: str) -> list[str]:
        """Paths of every kind of read, those of dashboards and pollers most often."""
        often = [f"/v1/jobs/{job.id}", f"/v1/jobs/{job.id}/events", f"/v1/series/{self.series.id}/curve"]
        seldom = ["/v1/whoami", "/v1/series", "/v1/jobs", f"/v1/series/{filled}", f"/v1/series/{filled}/checkpoints"]
        seldom += [f"/v1/jobs/job_{hashlib.md5(filled.encode(), usedforsecurity=False).hexdigest()}/results"]
        seldom += [f"/v1/series/{filled}/curve?measure=quantity_1&to_step=100", f"/v1/series/{filled}/transitions"]
        return often * 3 + seldom

    def wrk(self, paths: list[str], seconds: float) -> dict[str, float]:
        """Latencies in milliseconds of reads at 200 a second, once connections are open and statements prepared."""
        self._wrk(paths, WARM_UP_SECONDS)
        return self._wrk(paths, seconds)

    def _wrk(self, paths: list[str], seconds: float) -> dict[str, float]:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(paths))
            file.flush()
            command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "-s", str(ROOT / "bench" / "load.lua")]
            environment = {**os.environ, "LH_KEY": self.stack.key, "LH_PATHS": file.name}
            run = subprocess.run(
                [*command, self.stack.url], env=environment, capture_output=True, text=True, check=True
            )
        found = json.loads(run.stdout.splitlines()[-1])
        assert not found["refused"], run.stdout
        return found


def milliseconds(took: list[float]) -> str:
    """In words."""
    return f"the first time {1000 * took[0]:.0f} ms, then {1000 * statistics.median(took[1:]):.0f} ms"


def latency(found: dict[str, float]) -> str:
    """In words."""
    rate = found["requests"] / found["seconds"]
    broken = f", {found['broken']:.0f} broken" if found["broken"] else ""
    return f"p50 {found['p50']:.0f} ms, p99 {found['p99']:.0f} ms, max {found['max']:.0f} ms at {rate:.0f}/s{broken}"


@contextmanager
def bench() -> Iterator[Bench]:
    """Everything up, in a folder of its own."""
    root = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    root.chmod(0o755)
    os.environ["LAMBDAHAT_MAX_BLOB_BYTES"] = str(2**34)
    try:
        with (
            Stack(root, port=0, workers=1, apis=APIS) as stack,
            lambdahat.Client(stack.url, stack.key) as client,
            psycopg.connect(_database_url(root)) as database,
        ):
            yield Bench(stack, client, database)
    finally:
        shutil.rmtree(root)


def _database_url(root: Path) -> str:
    password = json.loads((root / "secrets.json").read_text())["app"]
    return f"postgresql://lambdahat:{quote(password)}@/lambdahat?host={quote(str(root / 'run'), safe='')}"


def curve_seconds(of: Bench, series: str) -> tuple[list[float], int]:
    """Until the curve of a series is there, six times, and its bytes."""
    with httpx.Client(base_url=of.stack.url, headers={"Authorization": f"Bearer {of.stack.key}"}) as client:
        seconds, size = [], 0
        client.get("/healthz")  # connects
        for _ in range(6):
            start = time.perf_counter()
            size = len(client.get(f"/v1/series/{series}/curve").raise_for_status().content)
            seconds.append(time.perf_counter() - start)
    return seconds, size


class Streams:
    """Event streams of one job, open at once. A context; `seen` are the ids that each has heard of."""

    def __init__(self, of: Bench, job: Job, count: int) -> None:
        self.seen: list[list[int]] = [[] for _ in range(count)]
        self.open = 0
        self._url, self._key, self._job = of.stack.url, of.stack.key, job
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def __enter__(self) -> "Streams":
        self._thread.start()
        while self.open < len(self.seen):
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)

    async def _all(self) -> None:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "text/event-stream"}
        async with httpx.AsyncClient(base_url=self._url, headers=headers, timeout=60, limits=limits) as client:
            await asyncio.gather(*(self._one(client, seen) for seen in self.seen))

    async def _one(self, client: httpx.AsyncClient, seen: list[int]) -> None:
        async with client.stream("GET", f"/v1/jobs/{self._job.id}/events") as response:
            self.open += 1
            async for line in response.aiter_lines():
                seen += [int(line.removeprefix("id: "))] if line.startswith("id: ") else []


def upload(of: Bench, size: int) -> tuple[float, float]:
    """MB/s of an upload of a file of random bytes, and MB by which the API grew at most."""
    apis = [psutil.Process(pid) for name, pid in of.stack.pids().items() if name.startswith("api")]

    def memory() -> int:
        return sum(api.memory_info().rss for api in apis)

    before, most, is_over = memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(0.05):
            most = max(most, memory())

    with tempfile.NamedTemporaryFile(dir=of.stack.root) as file:
        for _ in range(0, size, 2**24):
            file.write(os.urandom(2**24))
        file.flush()
        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        of.client.upload(file.name)
        seconds = time.perf_counter() - start
        is_over.set()
        watcher.join()
    return size / seconds / 1e6, (most - before) / 1e6


def measure(of: Bench, seconds: float, results: int, size: int) -> Figures:
    """All of it."""
    figures = Figures()
    rate, growth = upload(of, size)
    figures.add(
        f"upload of {size / 1e9:.1f} GB, hashed by client and server",
        f"{rate:.0f} MB/s",
        "≥ 100 MB/s",
    )
    figures.add("the API's memory grew meanwhile by at most", f"{growth:.0f} MB", "≤ 100 MB")
    filled = of.fill(CURVE_CHECKPOINTS)
    with of.running() as job:
        figures.add("reads at 200/s while a job runs", latency(of.wrk(of.reads(job, filled), seconds)), "p99 ≤ 100 ms")
        with Streams(of, job, STREAMS) as streams:
            found = of.wrk(of.reads(job, filled), seconds)
            figures.add(f"and with {STREAMS} open event streams", latency(found), "p99 ≤ 100 ms")
            of.client.cancel(job)
        events = [event.id for event in of.client.events(job)]
        whole = sum(seen == events for seen in streams.seen)
        figures.add("streams that had every event once and in order", f"{whole} of {STREAMS}", "all")
    took, length = curve_seconds(of, filled)
    what = f"curve of {CURVE_CHECKPOINTS} checkpoints × {MEASURES} measures ({length / 1e6:.1f} MB of JSON)"
    figures.add(what, milliseconds(took), "≤ 50 ms")
    start = time.perf_counter()
    while of.filled * CHECKPOINTS * MEASURES < results:
        filled = of.fill(CHECKPOINTS)
    figures.add(f"filling the database with {results} results", f"{time.perf_counter() - start:.0f} s")
    of.database.execute("ANALYZE")
    of.database.commit()
    with of.running() as job:
        found = of.wrk(of.reads(job, filled), seconds)
        figures.add(f"reads at 200/s while a job runs, {results} results in the database", latency(found))
    took, _ = curve_seconds(of, filled)
    figures.add(f"curve of {CHECKPOINTS} × {MEASURES} among them", milliseconds(took))
    start = time.perf_counter()
    httpx.get(f"{of.stack.url}/metrics", timeout=60).raise_for_status()
    figures.add("/metrics then", f"{1000 * (time.perf_counter() - start):.0f} ms")
    return figures


def machine() -> str:
    """What the figures are of. A shared machine is twice as fast in one hour as in another; a bare loop tells."""
    start = time.perf_counter()
    total = 0
    for number in range(10_000_000):
        total += number
    loop = f"which took {time.perf_counter() - start:.2f} s for a loop of ten million additions then"
    return f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, {loop}"


def document(figures: Figures, seconds: float) -> str:
    """docs/load.md."""
    lines = [f"| {what} | {found} | {goal} |" for what, found, goal in figures.rows]
    return "\n".join(
        [
            "# Load",
            "",
            f"`python -m bench.load`, {machine()}. API, database, broker, worker and clients share the cores. "
            f"Reads are a mix, by {CONNECTIONS} connections of one key for {seconds:g} s; each asks again .1 s after "
            f"an answer on average, at random. {APIS} processes of the API, and a worker computes beside them. The "
            f"first {WARM_UP_SECONDS} s "
            "don't count.",
            "",
            "| | measured | goal |",
            "|---|---|---|",
            *lines,
            "",
        ]
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="of reads, each time")
    parser.add_argument("--results", type=int, default=1_000_000, help="in the database at the end")
    parser.add_argument("--bytes", type=int, default=2 * 2**30, help="of the upload")
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt install wrk")
    with bench() as of:
        figures = measure(of, arguments.seconds, arguments.results, arguments.bytes)
    arguments.out.write_text(document(figures, arguments.seconds))


if __name__ == "__main__":
    main()
