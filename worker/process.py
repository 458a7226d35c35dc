"""The supervisor's end of a child process."""

import collections
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any

import structlog

log = structlog.get_logger()

LAST_WORDS = 30  # lines


class ChildDiedError(Exception):
    """The child ended in the middle of a request; the text has its exit status and its last words."""


class ChildProcess:
    """A process of `worker.child` on one CPU thread and, if given, one GPU. To be used by one thread at a time."""

    def __init__(self, memory_bytes: int, gpu: int | None = None) -> None:
        """memory_bytes: of the main memory, that it may have."""
        self.gpu = gpu
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.child", str(os.getpid()), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"CUDA_VISIBLE_DEVICES": "" if gpu is None else str(gpu)},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._about: dict[str, Any] = {}
        self._words: collections.deque[str] = collections.deque(maxlen=LAST_WORDS)
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_errors)]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, request: dict[str, Any]) -> None:
        """Give it something to do. Raises: ChildDiedError."""
        assert self._process.stdin
        self._about = structlog.contextvars.get_contextvars()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise ChildDiedError(self._last_words()) from None

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """Its next message; None if there is none within `timeout` seconds. Raises: ChildDiedError."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        if not line:
            raise ChildDiedError(self._last_words())
        return json.loads(line)

    def let_save(self, seconds: float) -> None:
        """Have it save what it has computed and end, if that takes no longer."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        if self._process.stdin:
            self._process.stdin.close()

    def _read_answers(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in lines:
                self._words.append(line)
                log.warning("child_says", child=self.pid, line=line.rstrip("\n"), **self._about)

    def _last_words(self) -> str:
        status = self._process.wait()
        self._readers[1].join()
        words = "".join(self._words).strip()
        ending = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"the child process {ending}: {words or 'no last words'}"
