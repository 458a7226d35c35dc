"""A real service of its own, in a process whose memory is watched, and a tenant of it."""

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lambdahat.stack.folder import DataFolder
from lambdahat.stack.postgres import Postgres
from lambdahat.stack.valkey import Valkey
from store import schema
from store.database import connect
from tests.api.conftest import new_lab
from tests.api.lab import Lab
from tests.lambdahat.service import Service

SECONDS = 0.02
"""Between two looks at the memory."""


@dataclass
class Watched:
    """A service, and what memory it took."""

    lab: Lab
    process: psutil.Process
    log: Path
    start: int = 0
    """Bytes of its memory when it was asked nothing yet."""
    peak: int = 0
    child_peak: int = 0
    """Of one of its readers of torch files."""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def crashes(self) -> list[str]:
        """What its log says of requests that it could not answer."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line)["exception"] for line in lines if '"event": "internal_error"' in line]

    @property
    def growth(self) -> int:
        """At most, in bytes."""
        return self.peak - self.start

    def watch(self) -> None:
        """Until `ended`."""
        while not self.ended.wait(SECONDS):
            try:
                self.peak = max(self.peak, self.process.memory_info().rss)
                sizes = [child.memory_info().rss for child in self.process.children(recursive=True)]
                self.child_peak = max(self.child_peak, *sizes, 0)
            except psutil.NoSuchProcess:  # a reader that has just ended
                continue


@contextmanager
def service() -> Iterator[Watched]:
    """Everything up, and down again at the end."""
    root = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    root.chmod(0o755)
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, root)
        (root / "servers").mkdir(mode=0o755)
        folder = ending.enter_context(DataFolder(root / "servers"))
        postgres, valkey = Postgres(folder), Valkey(folder)
        ending.enter_context(valkey.running())
        ending.enter_context(postgres.running())
        postgres.ensure_database()
        engine = connect(postgres.url)
        ending.callback(engine.dispose)
        schema.upgrade(engine)
        environment = {"DATABASE_URL": postgres.url, "BROKER_URL": valkey.url, "BLOB_DIR": str(root / "blobs")}
        settings, log = {f"LAMBDAHAT_{name}": value for name, value in environment.items()}, root / "api.log"
        running = ending.enter_context(Service(settings, log))
        lab = ending.enter_context(new_lab(running.url, engine, root / "blobs"))
        lab.dataset()  # what is imported at the first request counts as the service's own
        watched = Watched(lab, psutil.Process(running.pid), log)
        watched.start = watched.peak = watched.process.memory_info().rss
        thread = threading.Thread(target=watched.watch)
        thread.start()
        ending.callback(thread.join)
        ending.callback(watched.ended.set)
        yield watched
