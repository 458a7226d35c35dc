"""Runs leased shards: a thin layer between the job protocol and a child process that does the mathematics.

One supervisor a worker process, one thread a shard. Children are kept for the next shard as long as all goes well.
"""

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from llc.errors import InputError
from store import leases
from store.blobs import BlobStore
from store.database import connect
from store.ids import new_id
from store.leases import Lease, LeaseLostError
from store.settings import StoreSettings
from worker import work
from worker.process import ChildDiedError, ChildProcess

log = logging.getLogger(__name__)

WRITE_AGAIN_SECONDS = 1.0


class _CancelledError(Exception):
    """The job is to end."""


class _StoppingError(Exception):
    """This worker is to end."""


class Supervisor:
    """Claims shards, has them computed, and writes what came out."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._engine = connect(settings.database_url)
        self._blobs = BlobStore(settings.blob_dir)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = threading.Event()
        self._idle: queue.LifoQueue[ChildProcess] = queue.LifoQueue()
        self._gpus: queue.SimpleQueue[int] | None = None

    def use_gpus(self, count: int) -> None:
        """Give every child a GPU of its own."""
        self._gpus = queue.SimpleQueue()
        for gpu in range(count):
            self._gpus.put(gpu)

    def stop(self) -> None:
        """Give back what runs, to be taken by another worker at once; let idle children and connections go."""
        self._stopping.set()
        self._engine.dispose()
        while True:
            try:
                self._idle.get_nowait().dismiss()
            except queue.Empty:
                return

    def run(self, shard_id: str) -> None:
        """Run a shard from claim to end; return at once if the hint was a duplicate."""
        with Session(self._engine) as session, session.begin():
            lease = leases.claim(session, shard_id, self._owner, self._settings.lease_seconds)
        if lease is None:
            return
        with self._blobs.scratch() as scratch:
            self._run(lease, scratch)

    def _run(self, lease: Lease, scratch: Path) -> None:
        """Compute, and say how it ended. scratch: where the child may leave files."""
        try:
            answer = self._compute(lease, scratch)
            blobs = self._adopt(answer, scratch)
        except LeaseLostError:
            log.warning("shard %s: the lease (fence %d) is lost", lease.shard_id, lease.fence)
        except _CancelledError:
            self._write(lease, lambda session: leases.stop(session, lease))
        except _StoppingError:
            self._write(lease, lambda session: leases.release(session, lease))
        except InputError as error:
            words = {"code": error.code, "detail": error.detail, "hint": error.hint}
            self._write(lease, lambda session: leases.fail(session, lease, words, permanent=True))
        except ChildDiedError as error:
            words = {"code": "child_died", "detail": str(error)}
            self._write(lease, lambda session: leases.fail(session, lease, words))
        except OSError as error:
            words = {"code": "worker_failed", "detail": f"a file could not be read or written: {error}"}
            self._write(lease, lambda session: leases.fail(session, lease, words))
        else:
            stages = [_stage_row(i, row) for i, row in enumerate(answer)] if lease.kind == "stages" else []
            results = answer if lease.kind == "measure" else []
            calibration = answer[0] if lease.kind == "calibrate" else None
            self._write(lease, lambda session: leases.finish(session, lease, results, stages, blobs, calibration))

    def _adopt(self, answer: list[dict[str, Any]], scratch: Path) -> dict[str, int]:
        """Make the files that the rows of an answer name blobs, and name those instead: {SHA-256: size}."""
        blobs: dict[str, int] = {}
        for row in answer:
            if row.get("draws") is not None:
                sha256, size = self._blobs.adopt(scratch / Path(row["draws"]).name)
                row["draws"], blobs[sha256] = sha256, size
        return blobs

    def _compute(self, lease: Lease, scratch: Path) -> list[dict[str, Any]]:
        """The child's answer, with heartbeats while it works."""
        with Session(self._engine) as session:
            request = work.request(session, lease, self._blobs)
        child = self._child()
        try:
            child.send(request | {"gpu": child.gpu is not None, "scratch": str(scratch)})
            answer = self._watch(lease, child)
        except BaseException:
            self._end(child)
            raise
        self._idle.put(child)
        return answer

    def _watch(self, lease: Lease, child: ChildProcess) -> list[dict[str, Any]]:
        done, next_heartbeat = 0, time.monotonic() + self._settings.heartbeat_seconds
        while True:
            message = child.receive(timeout=max(0.0, next_heartbeat - time.monotonic())) or {}
            if "error" in message:
                raise InputError(**message["error"])
            if "answer" in message:
                return message["answer"]
            done = message.get("work", done)
            if self._stopping.is_set():
                raise _StoppingError
            if "plan" in message:
                child.send({"plan": self._agree(lease, message["plan"])})
            if time.monotonic() >= next_heartbeat:
                self._heartbeat(lease, done)
                next_heartbeat = time.monotonic() + self._settings.heartbeat_seconds

    def _agree(self, lease: Lease, plan: dict[str, Any]) -> dict[str, Any]:
        """The job's plan, however long the database is away."""
        while True:
            try:
                with Session(self._engine) as session, session.begin():
                    return leases.agree(session, lease, plan)
            except OperationalError as error:
                log.warning("shard %s: trying again to agree on a plan: %s", lease.shard_id, error)
                if self._stopping.wait(WRITE_AGAIN_SECONDS):
                    raise _StoppingError from None

    def _heartbeat(self, lease: Lease, done: int) -> None:
        try:
            with Session(self._engine) as session, session.begin():
                cancel = leases.heartbeat(session, lease, done, self._settings.lease_seconds)
        except OperationalError as error:
            # Work goes on: the fence keeps us from writing if the shard is given to another meanwhile.
            log.warning("shard %s: no heartbeat, the database is away: %s", lease.shard_id, error)
            return
        if cancel:
            raise _CancelledError

    def _write(self, lease: Lease, act: Callable[[Session], None]) -> None:
        """Say how a lease ended, however long the database is away."""
        while True:
            try:
                with Session(self._engine) as session, session.begin():
                    act(session)
                return
            except LeaseLostError:
                with Session(self._engine) as session:
                    # An earlier try of ours may have been committed although its answer was lost.
                    if not leases.is_finished(session, lease):
                        log.warning("shard %s: the lease was lost at the end; nothing written", lease.shard_id)
                return
            except OperationalError as error:
                log.warning("shard %s: trying again to write its end: %s", lease.shard_id, error)
                time.sleep(WRITE_AGAIN_SECONDS)

    def _child(self) -> ChildProcess:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return ChildProcess(gpu=self._gpus.get() if self._gpus else None)

    def _end(self, child: ChildProcess) -> None:
        child.kill()
        if self._gpus and child.gpu is not None:
            self._gpus.put(child.gpu)


def _stage_row(ordinal: int, stage: dict[str, Any]) -> dict[str, Any]:
    """A row of `stages` from what `llc.stages` found."""
    reason = stage.pop("reason", "")
    return stage | {"id": new_id("stg"), "ordinal": ordinal, "details": {"reason": reason} | stage.get("details", {})}
