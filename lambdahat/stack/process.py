"""A child process that dies with us, logs to a file, and is started again when it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lambdahat.stack.account import Account
from lambdahat.stack.errors import StackError

LAUNCHER = Path(__file__).with_name("launch.py")
FIRST_DELAY = 0.5
LONGEST_DELAY = 5.0
HEALTHY_AFTER = 30.0
"""Seconds: the pause before a second start, its limit when doubled, and how long a run proves a child well."""
LAST_LINES = 5
LONGEST_LOG = 16 * 2**20


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Program:
    """What to run and how.

    command: absolute path and arguments; stdin: what it reads there (secrets don't belong on a command line);
    before: called before every start; stop_signal, stop_seconds: how it is asked to end, and for how long before it
    is killed; death_signal: what it gets when we die, however we die.
    """

    name: str
    command: Sequence[str | Path]
    log: Path
    environment: Mapping[str, str] | None = None
    account: Account | None = None
    stdin: str = ""
    before: Callable[[], None] = _nothing
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 5.0
    death_signal: signal.Signals = signal.SIGKILL


def spawn(program: Program, stdout: IO[bytes] | int, stderr: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start a program, its stdin a pipe, in a session of its own: a Ctrl-C in the terminal is ours to hand on."""
    user = program.account if program.account and program.account.switch else None
    launcher = [sys.executable, "-I", "-S", LAUNCHER, os.getpid(), int(program.death_signal)]
    launcher += [user.uid, user.gid] if user else [-1, -1]
    return subprocess.Popen(
        [str(part) for part in (*launcher, *program.command)],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=program.environment,
        cwd="/" if program.account else None,
        start_new_session=True,
    )


def run(program: Program, seconds: float) -> str:
    """Run a program to its end; what it printed.

    Errors: StackError when it fails or takes longer than `seconds`.
    """
    with open_log(program.log) as log, spawn(program, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            output, _ = process.communicate(program.stdin.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise StackError(f"{program.name} took longer than {seconds:g} s, log: {program.log}") from None
    if process.returncode:
        raise StackError(f"{program.name} failed: {describe_ending(program, process.returncode)}")
    return output.decode()


def open_log(path: Path) -> IO[bytes]:
    """The log to append to; a long one is put aside first."""
    if path.exists() and path.stat().st_size > LONGEST_LOG:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def describe_ending(program: Program, code: int | None) -> str:
    """An exit code (None: still running) in words, with the last lines of the log."""
    how = "still running" if code is None else f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    lines = program.log.read_text(errors="replace").splitlines()[-LAST_LINES:] if program.log.exists() else []
    return "\n    ".join([f"{how}, log: {program.log}", *lines])


@dataclass
class Child:
    """A program under supervision. All calls come from one thread: the kernel counts *its* end as our death."""

    program: Program
    restarts: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started: float = 0.0
    _delay: float = FIRST_DELAY
    _start_at: float | None = None
    _asked: bool = False

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the program."""
        self.program.before()
        self._start_at = None
        self._asked = False
        self._started = time.monotonic()
        with open_log(self.program.log) as log:
            self._process = spawn(self.program, stdout=log, stderr=subprocess.STDOUT)
        assert self._process.stdin
        # It may have ended at once, which its exit code tells.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(self.program.stdin.encode())

    def watch(self) -> str | None:
        """Start the program again if it has ended and its pause is over; a line to show if it has just ended."""
        now = time.monotonic()
        if self._start_at is None:
            if self._process is None or self._process.poll() is None:
                return None
            if now - self._started > HEALTHY_AFTER:
                self._delay = FIRST_DELAY
            return self._pause(f"{self.program.name} ended ({self.ending()})")
        if now >= self._start_at:
            self.restarts += 1
            try:
                self.start()
            except (StackError, OSError) as error:
                return self._pause(f"{self.program.name} can't be started ({error})")
        return None

    def _pause(self, what: str) -> str:
        pause, self._delay = self._delay, min(2 * self._delay, LONGEST_DELAY)
        self._start_at = time.monotonic() + pause
        return f"{what}\n    starting it again in {pause:g} s"

    def ending(self) -> str:
        """How it ended, for a person: `exit code 1` or `SIGKILL`, with the last lines of its log."""
        return describe_ending(self.program, self._process.poll() if self._process else None)

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for `ready()`. Errors: StackError when the program ends first, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.pid is None:
                raise StackError(f"{self.program.name} did not start: {self.ending()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.program.name} is not ready after {seconds:g} s: {self.ending()}")
            time.sleep(0.03)

    def ask_to_stop(self) -> None:
        """Send the program its stop signal, once (a second one tells some to hurry), and don't start it again."""
        self._start_at = None
        if self._process and not self._asked:
            self._asked = True
            self._process.send_signal(self.program.stop_signal)

    def kill(self) -> None:
        """End the program without asking it; safe from any thread."""
        if process := self._process:
            process.send_signal(self.program.death_signal)

    def stop(self) -> None:
        """Ask the program to end, wait, kill it if it does not."""
        self.ask_to_stop()
        if self._process is None:
            return
        try:
            self._process.wait(self.program.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Started, and stopped at the end."""
        try:
            self.start()
            yield
        finally:
            self.stop()
