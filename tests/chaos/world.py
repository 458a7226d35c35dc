"""A stack to break: real servers behind proxies, and a series of many small shards on it."""

import dataclasses
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
import pytest
from numpy.typing import NDArray

import lambdahat
from lambdahat.objects import Job, Series
from lambdahat.stack import Stack
from lambdahat.stack.folder import DataFolder
from lambdahat.stack.postgres import Postgres
from lambdahat.stack.process import Child
from lambdahat.stack.valkey import Valkey
from store.checks import broker_client
from tests.chaos.proxy import Proxy, broker_through, database_through, in_front_of_broker, in_front_of_database

LEASE_SECONDS = 4.0
SILENCE_SECONDS = 25.0
"""A child needs some to import its mathematics."""

CHILDREN = 2

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
"""Debian's libfaketime, to set the clock of PostgreSQL alone."""

TIMES = {
    "LEASE_SECONDS": LEASE_SECONDS,
    "HEARTBEAT_SECONDS": 0.3,
    "DISPATCH_AGAIN_SECONDS": 2,
    "SWEEP_SECONDS": 0.2,
    "SAVE_SECONDS": 0.2,
    "DATABASE_SECONDS": 3,
    "IDLE_SECONDS": 8,
    "SILENCE_SECONDS": SILENCE_SECONDS,
}

MEASURES = {
    "loss": {},
    "llc": {"batch_size": 16, "num_burnin_steps": 50, "num_draws": 400, "gamma": 10.0, "sampler": {"epsilon": 1e-3}},
    "hessian": {"num_probes": 2, "num_lanczos_steps": 10, "num_eigenvalues": 2},
}


@dataclass
class World:
    """What there is to break, and how to look at it."""

    stack: Stack
    client: lambdahat.Client
    database: Proxy
    """On the way of API, workers and sweeper to PostgreSQL."""
    broker: Proxy
    database_url: str
    """Straight to it."""
    broker_url: str
    """Straight to it."""
    servers: dict[str, Child]
    clock: Path
    """What PostgreSQL's clock differs by, if there is libfaketime."""
    news: list[str] = field(default_factory=list)

    def pid(self, name: str) -> int | None:
        """Of postgres, valkey, worker, sweeper, api; None while it is between two lives."""
        return self.servers[name].pid if name in self.servers else self.stack.pids().get(name)

    def computing(self) -> list[psutil.Process]:
        """Children that do mathematics, or wait for some."""
        try:
            children = psutil.Process(self.pid("worker") or 0).children()
            return [child for child in children if "worker.child" in " ".join(child.cmdline())]
        except psutil.Error:
            return []

    def query(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Of the database, straight."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement.encode(), arguments).fetchall()

    def flush_broker(self) -> None:
        """FLUSHALL."""
        with broker_client(self.broker_url) as client:
            client.flushall()

    def set_clock(self, seconds: float) -> bool:
        """Set PostgreSQL's clock ahead, or back; False if it can't be set here."""
        if not FAKETIME.exists():
            return False
        ((before,),) = self.query("SELECT extract(epoch FROM clock_timestamp())")
        set_to = self.clock.with_suffix(".new")
        set_to.write_text(f"{float(self.clock.read_text().rstrip('s')) + seconds:+.0f}s")
        set_to.replace(self.clock)
        while abs(float(self.query("SELECT extract(epoch FROM clock_timestamp())")[0][0] - before) - seconds) > 60:
            time.sleep(0.1)
        return True

    def new_series(self) -> Series:
        """Of a small network, without a checkpoint."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((200, 3)).astype(np.float32)
        dataset = self.client.create_dataset("points", x=x, y=(x.sum(1) > 0).astype(np.int64))
        model = self.client.create_model("small", {"family": "mlp", "widths": [3, 8, 2], "activation": "tanh"})
        return self.client.create_series("a run", model, dataset)

    def states(self, count: int) -> Iterator[dict[str, NDArray[np.float32]]]:
        """The network's parameters at so many steps: random ones, the same every time."""
        rng = np.random.default_rng(1)
        shapes = {"layers.0.weight": (8, 3), "layers.0.bias": (8,), "layers.1.weight": (2, 8), "layers.1.bias": (2,)}
        for _ in range(count):
            yield {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}

    def series(self, checkpoints: int) -> Series:
        """With checkpoints."""
        series = self.new_series()
        for step, state in enumerate(self.states(checkpoints)):
            self.client.add_checkpoint(series, step, state)
        return series

    def run(self, series: Series, **settings: Any) -> Job:
        """A job of one shard a checkpoint."""
        return self.client.run(series, MEASURES, checkpoints_per_shard=1, **settings)


@contextmanager
def world() -> Iterator[World]:
    """Everything up, and down again at the end."""
    root = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    root.chmod(0o755)
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, root)
        servers = ending.enter_context(_Servers(root / "servers"))
        database_url, broker_url = servers.urls
        database = ending.enter_context(in_front_of_database(database_url))
        messages = ending.enter_context(in_front_of_broker(broker_url))
        patch = ending.enter_context(pytest.MonkeyPatch.context())
        for name, value in TIMES.items():
            patch.setenv(f"LAMBDAHAT_{name}", str(value))
        patch.setenv("LAMBDAHAT_DATABASE_URL", database_through(database, database_url))
        patch.setenv("LAMBDAHAT_BROKER_URL", broker_through(messages, broker_url))
        news: list[str] = []
        stack = ending.enter_context(Stack(root / "data", port=0, workers=CHILDREN, say=news.append))
        client = ending.enter_context(lambdahat.Client(stack.url, stack.key))
        yield World(stack, client, database, messages, database_url, broker_url, servers.children, servers.clock, news)


class _Servers:
    """PostgreSQL and Valkey, started again when they end, by one thread that lives as long as they."""

    def __init__(self, root: Path) -> None:
        self._root, self.clock = root, root / "clock"
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self.children: dict[str, Child] = {}
        self.urls = "", ""

    def __enter__(self) -> "_Servers":
        self._root.mkdir(mode=0o755)
        self.clock.write_text("+0s")
        self._thread.start()
        assert self._ready.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _supervise(self) -> None:
        with DataFolder(self._root) as folder:
            postgres, valkey = Postgres(folder), Valkey(folder)
            if FAKETIME.exists():
                _follow(self.clock, postgres.child)
            with valkey.running(), postgres.running():
                postgres.ensure_database()
                self.children = {"postgres": postgres.child, "valkey": valkey.child}
                self.urls = postgres.url, valkey.url
                self._ready.set()
                while not self._stop.wait(0.05):
                    postgres.child.watch()
                    valkey.child.watch()


def _follow(clock: Path, child: Child) -> None:
    """Have a program's clock differ by what a file says, at most a second later."""
    settings = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_CACHE_DURATION": 1}
    settings |= {"FAKETIME_DONT_FAKE_MONOTONIC": 1, "FAKETIME_DISABLE_SHM": 1}
    fake = ["/usr/bin/env", *(f"{name}={value}" for name, value in settings.items())]
    child.program = dataclasses.replace(child.program, command=[*fake, *child.program.command])
