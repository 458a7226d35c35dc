"""The whole stack on this machine, under supervision: PostgreSQL, Valkey, the API, the workers and the sweeper."""

import importlib.util
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Self

import httpx

from lambdahat.stack.address import DEFAULT_HOST, DEFAULT_PORT, local_url, pick_port
from lambdahat.stack.errors import StackError
from lambdahat.stack.folder import DataFolder, default_root, write_secret
from lambdahat.stack.process import Child, Program, run

TENANT = "default"
ADMIN_SECONDS = 600.0
READY_SECONDS = 60.0
WATCH_SECONDS = 0.1
SERVER_PACKAGES = ("alembic", "celery", "fastapi", "psutil", "psycopg", "redis", "sqlalchemy", "torch", "uvicorn")

log = logging.getLogger(__name__)


class _StopRequestedError(Exception):
    """The stack is asked to stop while it starts."""


class Stack:
    """The stack of one data root.

        with Stack(data, port=0) as stack:
            client = lambdahat.Client(stack.url, stack.key)

    data: the data root (`default_root()` if None); port: 0 picks a free one; workers: processes that compute (one for
    each core if None); apis: processes that answer requests; say: is told, in one line or a few, what went wrong with
    a child.
    LAMBDAHAT_DATABASE_URL and LAMBDAHAT_BROKER_URL in the environment replace the embedded servers.

    Errors: StackError when it can't start.
    """

    def __init__(
        self,
        data: Path | None = None,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        workers: int | None = None,
        apis: int = 1,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        self.root = (data or default_root()).absolute()
        self._host = host
        self._port = port
        self._workers = workers or cores()
        self._apis = apis
        self._say = say
        self._servers: list[Child] = []
        self._programs: list[Child] = []
        self._stopping = threading.Event()
        self._started: Future[None] = Future()
        # One thread starts, watches and ends all children: the kernel tells them of the end of the *thread* that made
        # them, so it must be one that lives as long as they do, whoever calls us.
        self._thread = threading.Thread(target=self._supervise, name="lambdahat-supervisor", daemon=True)
        self._failure: BaseException | None = None
        self._key: str | None = None
        self.key_is_new = False

    @property
    def url(self) -> str:
        """Where the API answers."""
        return local_url(self._host, self._port)

    @property
    def key_path(self) -> Path:
        """The file that keeps the first API key."""
        return self.root / "key"

    @property
    def key(self) -> str:
        """An API key of the first tenant. Errors: StackError before the stack has started."""
        if self._key is None:
            raise StackError("There is no API key before the stack has started.")
        return self._key

    def pids(self) -> dict[str, int]:
        """The children that run now: postgres, valkey, worker, api, api-2 …, sweeper, webhooks → process id."""
        children = {child.program.name: child.pid for child in (*self._servers, *self._programs)}
        return {name: pid for name, pid in children.items() if pid is not None}

    def start(self) -> None:
        """Start everything and wait until the API is ready."""
        self._thread.start()
        try:
            self._started.result()
        except _StopRequestedError:
            pass
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Wait until the stack has stopped. Errors: what ended the supervision, if it was not `stop`."""
        self._thread.join()
        if self._failure:
            raise self._failure

    def request_stop(self) -> None:
        """Ask everything to stop, and don't wait."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether it has been asked to stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop everything: workers, API and sweeper, then the servers."""
        self.request_stop()
        self._thread.join()

    def kill(self) -> None:
        """End everything at once."""
        self.request_stop()
        for child in (*self._programs, *self._servers):
            child.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _supervise(self) -> None:
        try:
            with DataFolder(self.root) as folder:
                try:
                    self._start(folder)
                    self._started.set_result(None)
                    while not self._stopping.wait(WATCH_SECONDS):
                        self._watch()
                finally:
                    (folder.root / "address").unlink(missing_ok=True)
                    self._stop_children()
        except BaseException as error:
            if self._started.done():
                self._failure = error
            else:
                self._started.set_exception(error)

    def _start(self, folder: DataFolder) -> None:
        for package in SERVER_PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise StackError(f"The package {package} is not installed.", "pip install 'lambdahat[server]'")
        self._port = pick_port(self._host, self._port)
        # PYTHONSAFEPATH: no module of the working folder passes for one of ours.
        fixed = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
        environment = {**os.environ, **self._start_servers(folder), **fixed}
        environment.setdefault("LAMBDAHAT_BLOB_DIR", str(folder.blobs))
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder.metrics)

        def python(name: str, *arguments: str, stop_seconds: float = 5.0) -> Program:
            command = [sys.executable, "-m", *arguments]
            return Program(name, command, folder.logs / f"{name}.log", environment, stop_seconds=stop_seconds)

        def admin(*arguments: str) -> str:
            return run(python("admin", "store.admin", *arguments), ADMIN_SECONDS)

        # The worker, slow to import its mathematics, does so while the tables are made; no work comes before them.
        self._launch(python("worker", "worker", "--concurrency", str(self._workers), stop_seconds=15.0))
        admin("migrate")
        self._check_not_stopping()
        listen = ("--host", self._host, "--port", str(self._port), *(["--share-port"] if self._apis > 1 else []))
        api = self._launch(python("api", "api", *listen))
        new_key = json.loads(admin("ensure-tenant", "--name", TENANT))["key"]
        self._wait_ready(api)
        self._launch(python("sweeper", "worker.sweeper"))
        self._launch(python("webhooks", "worker.webhooks", stop_seconds=20.0))  # as long as an attempt may take
        for number in range(2, self._apis + 1):
            self._launch(python(f"api-{number}", "api", *listen))
        self._keep_key(new_key, admin)
        (folder.root / "address").write_text(f"{self.url}\n")

    def _start_servers(self, folder: DataFolder) -> dict[str, str]:
        """Start the servers that the environment does not name; the variables that name them."""
        variables: dict[str, str] = {}
        valkey = postgres = None
        if not os.environ.get("LAMBDAHAT_BROKER_URL"):
            from lambdahat.stack.valkey import Valkey

            valkey = Valkey(folder)
            variables["LAMBDAHAT_BROKER_URL"] = valkey.url
            self._servers.append(valkey.child)
            valkey.child.start()
        if not os.environ.get("LAMBDAHAT_DATABASE_URL"):
            from lambdahat.stack.postgres import Postgres

            postgres = Postgres(folder)
            variables["LAMBDAHAT_DATABASE_URL"] = postgres.url
            postgres.initialise()
            self._check_not_stopping()
            self._servers.append(postgres.child)
            postgres.child.start()
            postgres.wait()
            postgres.ensure_database()
        if valkey:
            valkey.wait()
        self._check_not_stopping()
        return variables

    def _launch(self, program: Program) -> Child:
        child = Child(program)
        self._programs.append(child)
        child.start()
        return child

    def _wait_ready(self, api: Child) -> None:
        answer = "no answer"
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(base_url=self.url, timeout=5.0, trust_env=False) as client:
            while True:
                self._check_not_stopping()
                try:
                    response = client.get("/readyz")
                    if response.status_code == 200:
                        return
                    answer = response.text
                except httpx.TransportError:
                    pass
                if api.pid is None:
                    raise StackError(f"api did not start: {api.ending()}")
                if time.monotonic() > deadline:
                    raise StackError(
                        f"The API is not ready after {READY_SECONDS:g} s: {answer}", f"See {api.program.log}."
                    )
                self._watch()
                time.sleep(0.05)

    def _keep_key(self, key: str | None, admin: Callable[..., str]) -> None:
        """Keep the new key beside the data, or find the one kept there.

        The database knows only hashes of keys, so where none is kept, or one that it does not accept (revoked, or of
        another database), another is made.
        """
        if key is None and self.key_path.exists():
            kept = self.key_path.read_text().strip()
            asked = httpx.get(f"{self.url}/v1/whoami", headers={"Authorization": f"Bearer {kept}"}, trust_env=False)
            if asked.is_success:
                self._key = kept
                return
        if key is None:
            key = json.loads(admin("create-key", "--name", TENANT, "--label", "lambdahat serve"))["key"]
        write_secret(self.key_path, f"{key}\n")
        self._key = key
        self.key_is_new = True

    def _watch(self) -> None:
        for child in (*self._servers, *self._programs):
            if news := child.watch():
                self._say(news)

    def _check_not_stopping(self) -> None:
        if self._stopping.is_set():
            raise _StopRequestedError

    def _stop_children(self) -> None:
        """All programs at once, so that their seconds of grace pass together; then what they needed."""
        for child in self._programs:
            child.ask_to_stop()
        for child in (*self._programs, *reversed(self._servers)):
            child.stop()


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
