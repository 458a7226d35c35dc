"""Runs leased shards: a thin layer between the job protocol and a child process that does the mathematics.

One supervisor a worker process, one thread a shard. Children are kept for the next shard as long as all goes well.
"""

import itertools
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy.orm import Session

from store import leases
from store.blobs import BlobStore
from store.database import AWAY, connect
from store.ids import new_id
from store.leases import Lease, LeaseLostError
from store.logs import Outage
from store.settings import StoreSettings
from worker import work
from worker.failures import FailedError, Failure, failure_of
from worker.limits import share_of_memory
from worker.process import ChildDiedError, ChildProcess

log = structlog.get_logger()

SAVING_SECONDS = 3.0
"""For a child to save what it has computed when this worker is to end."""

AGAIN_SECONDS = 1.0
ALL_DONE = 2**62
"""Row-steps: more than any shard has."""

T = TypeVar("T")


class _CancelledError(Exception):
    """The job is to end."""


class _StoppingError(Exception):
    """This worker is to end."""


class Supervisor:
    """Claims shards, has them computed, and writes what came out."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._engine = connect(settings.database_url, seconds=settings.database_seconds)
        self._blobs = BlobStore(settings.blob_dir)
        self._owner, self._claims = f"{socket.gethostname()}:{os.getpid()}", itertools.count()
        self._database = Outage("database")
        self.stopping = threading.Event()
        self._running, self._last_heard = 0, time.monotonic()
        self._counting = threading.Lock()
        self._memory_bytes = settings.memory_bytes or share_of_memory(1)
        self._idle: queue.LifoQueue[ChildProcess] = queue.LifoQueue()
        self._gpus: queue.SimpleQueue[int] | None = None

    def use_gpus(self, count: int) -> None:
        """Give every child a GPU of its own."""
        self._gpus = queue.SimpleQueue()
        for gpu in range(count):
            self._gpus.put(gpu)

    def prepare(self, children: int) -> None:
        """Start so many children, which takes seconds, each with its share of the machine's memory unless settings say
        how much. To be called by a thread that lives as long as they should.
        """
        self._memory_bytes = self._settings.memory_bytes or share_of_memory(children)
        for _ in range(children):
            self._idle.put(self._new_child())

    def idle_for(self) -> float:
        """Seconds since anything was heard from the broker; 0 while a shard is computed."""
        with self._counting:
            return 0.0 if self._running else time.monotonic() - self._last_heard

    def stop(self) -> None:
        """Give back what runs, to be taken by another worker at once; let idle children and connections go."""
        self.stopping.set()
        self._engine.dispose()
        while True:
            try:
                self._idle.get_nowait().kill()
            except queue.Empty:
                return

    def run(self, shard_id: str) -> None:
        """Run a shard from claim to end; return at once if the hint was a duplicate."""
        with self._busy():
            self._claim_and_run(shard_id)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        with self._counting:
            self._running += 1
        try:
            yield
        finally:
            with self._counting:
                self._running, self._last_heard = self._running - 1, time.monotonic()

    def _claim_and_run(self, shard_id: str) -> None:
        owner = f"{self._owner}:{next(self._claims)}"
        try:
            with Session(self._engine) as session, session.begin():
                lease = leases.claim(session, shard_id, owner, self._settings.lease_seconds)
        except AWAY as error:
            self._database.away(error)
            # Or it was, and the answer was lost. Nobody would compute it until that lease ran out.
            with suppress(_StoppingError):
                self._patiently(lambda session: leases.give_back(session, shard_id, owner))
            return
        self._database.back()
        if lease is None:
            return
        about = {"job": lease.job_id, "shard": lease.shard_id, "attempt": lease.attempt}
        with structlog.contextvars.bound_contextvars(**about), self._blobs.scratch() as scratch:
            log.info("shard_started", kind=lease.kind, checkpoints=len(lease.checkpoint_ids))
            start = time.monotonic()
            how = self._run(lease, scratch)
            log.info(f"shard_{how}", seconds=round(time.monotonic() - start, 3))

    def _run(self, lease: Lease, scratch: Path) -> str:
        """Compute, and say how it ended, to the database and in a word. scratch: where the child may leave files."""
        try:
            answer = self._compute(lease, scratch)
            blobs = self._adopt(lease, answer, scratch)
        except LeaseLostError:
            return "lost"
        except _CancelledError:
            self._write(lease, lambda session: leases.stop(session, lease))
            self._blobs.forget(lease.shard_id)
            return "cancelled"
        except _StoppingError:
            self._write(lease, lambda session: leases.release(session, lease))
            return "released"
        except Exception as error:
            failure = error.failure if isinstance(error, FailedError) else failure_of(error)
            if failure is None:
                raise
            words, permanent = failure.words(), failure.permanent
            log.warning("attempt_failed", permanent=permanent, **words)
            self._write(lease, lambda session: leases.fail(session, lease, words, permanent=permanent))
            if permanent:
                self._blobs.forget(lease.shard_id)
            return "failed"
        else:
            stages = [_stage_row(i, row) for i, row in enumerate(answer)] if lease.kind == "stages" else []
            results = answer if lease.kind == "measure" else []
            calibration = answer[0] if lease.kind == "calibrate" else None
            self._write(lease, lambda session: leases.finish(session, lease, results, stages, blobs, calibration))
            self._blobs.forget(lease.shard_id)
            return "succeeded"

    def _adopt(self, lease: Lease, answer: list[dict[str, Any]], scratch: Path) -> dict[str, int]:
        """Make the files that the rows of an answer name blobs, and name those instead: {SHA-256: size}. With
        heartbeats: to hash and to sync thousands may take longer than a lease.
        """
        blobs, next_heartbeat = dict[str, int](), time.monotonic() + self._settings.heartbeat_seconds
        for row in answer:
            if time.monotonic() >= next_heartbeat:
                self._heartbeat(lease, ALL_DONE)
                next_heartbeat = time.monotonic() + self._settings.heartbeat_seconds
            if row.get("draws") is not None:
                sha256, size = self._blobs.adopt(scratch / Path(row["draws"]).name)
                row["draws"], blobs[sha256] = sha256, size
        return blobs

    def _compute(self, lease: Lease, scratch: Path) -> list[dict[str, Any]]:
        """The child's answer, with heartbeats while it works."""
        request = self._patiently(lambda session: work.request(session, lease, self._blobs))
        child = self._child()
        try:
            about = {"gpu": child.gpu is not None, "scratch": str(scratch)}
            saved = {"saved": str(self._blobs.saved(lease.shard_id)), "save_seconds": self._settings.save_seconds}
            child.send(request | about | saved)
            answer = self._watch(lease, child)
        except ChildDiedError as error:
            self._end(child)
            raise FailedError(Failure("child_died", str(error))) from None
        except BaseException:
            self._end(child)
            raise
        self._idle.put(child)
        return answer

    def _watch(self, lease: Lease, child: ChildProcess) -> list[dict[str, Any]]:
        settings, start = self._settings, time.monotonic()
        done, heard, next_heartbeat = 0, start, start + settings.heartbeat_seconds
        while True:
            message = child.receive(timeout=max(0.0, next_heartbeat - time.monotonic())) or {}
            if message:
                heard = time.monotonic()
            if "error" in message:
                raise FailedError(Failure(**message["error"]))
            if "answer" in message:
                return message["answer"]
            done = message.get("work", done)
            if self.stopping.is_set():
                child.let_save(SAVING_SECONDS)
                raise _StoppingError
            if "plan" in message:
                child.send({"plan": self._patiently(partial(leases.agree, lease=lease, plan=message["plan"]))})
            if time.monotonic() - heard > settings.silence_seconds:
                raise FailedError(
                    Failure("child_silent", f"nothing was heard of it for {settings.silence_seconds:g} s")
                )
            if time.monotonic() - start > settings.attempt_seconds:
                raise FailedError(Failure("too_long", f"it computed for more than {settings.attempt_seconds:g} s"))
            if time.monotonic() >= next_heartbeat:
                self._heartbeat(lease, done)
                next_heartbeat = time.monotonic() + settings.heartbeat_seconds

    def _patiently(self, act: Callable[[Session], T], *, to_the_end: bool = False) -> T:
        """Do something in a transaction, however long the database is away. to_the_end: even if this worker is to end.

        Raises: _StoppingError.
        """
        while True:
            try:
                with Session(self._engine) as session, session.begin():
                    answer = act(session)
                self._database.back()
                return answer
            except AWAY as error:
                self._database.away(error)
                if to_the_end:
                    time.sleep(AGAIN_SECONDS)
                elif self.stopping.wait(AGAIN_SECONDS):
                    raise _StoppingError from None

    def _heartbeat(self, lease: Lease, done: int) -> None:
        try:
            with Session(self._engine) as session, session.begin():
                cancel = leases.heartbeat(session, lease, done, self._settings.lease_seconds)
        except AWAY as error:
            # Work goes on: the fence keeps us from writing if the shard is given to another meanwhile.
            self._database.away(error)
            return
        self._database.back()
        if cancel:
            raise _CancelledError

    def _write(self, lease: Lease, act: Callable[[Session], None]) -> None:
        """Say how a lease ended."""
        try:
            self._patiently(act, to_the_end=True)
        except LeaseLostError:
            # An earlier try of ours may have been committed although its answer was lost.
            if not self._patiently(partial(leases.is_finished, lease=lease), to_the_end=True):
                log.warning("lease_lost_at_the_end", reason="nothing is written")

    def _child(self) -> ChildProcess:
        while True:
            try:
                child = self._idle.get_nowait()
            except queue.Empty:
                break
            if child.lives:
                return child
            self._end(child)
        return self._new_child()

    def _new_child(self) -> ChildProcess:
        gpu = self._gpus.get() if self._gpus else None
        try:
            return ChildProcess(self._memory_bytes, gpu)
        except BaseException:
            self._give_back(gpu)
            raise

    def _end(self, child: ChildProcess) -> None:
        child.kill()
        self._give_back(child.gpu)

    def _give_back(self, gpu: int | None) -> None:
        if self._gpus and gpu is not None:
            self._gpus.put(gpu)


def _stage_row(ordinal: int, stage: dict[str, Any]) -> dict[str, Any]:
    """A row of `stages` from what `llc.stages` found."""
    reason = stage.pop("reason", "")
    return stage | {"id": new_id("stg"), "ordinal": ordinal, "details": {"reason": reason} | stage.get("details", {})}
