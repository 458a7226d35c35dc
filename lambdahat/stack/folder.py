"""The data root: one folder with everything that `lambdahat serve` remembers, held by one process at a time.

lock         flock, and the process id of the holder
secrets.json the generated passwords of the servers, 0600
key          the first API key, 0600
address      where the API answers, while it does
postgres/    the database, owned by the servers' account; postgres.15 is what `lambdahat upgrade` left
run/         Unix sockets (a link to a short path where the data root's is too long for one)
metrics/     figures that the processes of the API share, of this start
blobs/  logs/  programs/
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Self

from lambdahat.stack.account import server_account
from lambdahat.stack.errors import StackError

# sockaddr_un holds 108 bytes (104 on macOS); the longest name in the folder is `.s.PGSQL.5432.lock`.
LONGEST_SOCKET_FOLDER = 80


def default_root() -> Path:
    """LAMBDAHAT_DATA, else /var/lib/lambdahat for root and ~/.local/share/lambdahat for users."""
    if chosen := os.environ.get("LAMBDAHAT_DATA"):
        return Path(chosen)
    return Path("/var/lib/lambdahat") if os.geteuid() == 0 else Path.home() / ".local/share/lambdahat"


class DataFolder:
    """The data root, locked until `close` (or the end of the process).

    Errors: StackError when another process holds it, or it can't be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.account = server_account()
        self._make_root()
        self._lock = self._take_lock()
        try:
            self.logs = self._make("logs", 0o700)
            self.blobs = self._make("blobs", 0o700)
            shutil.rmtree(self.root / "metrics", ignore_errors=True)
            self.metrics = self._make("metrics", 0o700)
            self.run = self._make_run()
            self.passwords = self._read_passwords()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the data root free. The `lock` file stays: removing it would let two processes lock two files."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # An empty folder becomes ours, and the servers' account must pass through it. One with something in it
            # is left as it is: it could be anybody's home.
            if not any(self.root.iterdir()):
                self.root.chmod(0o711 if self.account.switch else 0o700)
        except OSError as error:
            raise StackError(f"Can't use {self.root} for the data: {error}.", "Choose another with --data.") from error

    def _take_lock(self) -> int:
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
            os.close(lock)
            raise StackError(
                f"{self.root} is in use by process {holder}.", "Stop that one, or choose another folder with --data."
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    def check_reach(self) -> None:
        """Errors: StackError when the servers' account can't pass through the data root."""
        probe = Path(tempfile.mkdtemp(prefix=".reach-", dir=self.root))
        try:
            self.account.give(probe)
            reached = self.account.reaches(probe)
        finally:
            probe.rmdir()
        if not reached:
            raise StackError(
                f"{self.root} can't be reached by the user `nobody`, whom root's PostgreSQL runs as.",
                "Choose a folder with --data that everyone may pass through, such as /var/lib/lambdahat.",
            )

    def _make(self, name: str, mode: int) -> Path:
        path = self.root / name
        path.mkdir(exist_ok=True)
        path.chmod(mode)
        return path

    def _make_run(self) -> Path:
        run = self.root / "run"
        if run.is_symlink():  # a short path of an earlier time
            shutil.rmtree(run.resolve(), ignore_errors=True)
            run.unlink()
        if len(os.fsencode(run)) > LONGEST_SOCKET_FOLDER:
            short = Path(tempfile.mkdtemp(prefix="lambdahat-", dir="/tmp"))
            run.symlink_to(short)
            run = short
        run.mkdir(exist_ok=True)
        run.chmod(0o700)
        self.account.give(run)
        return run

    def _read_passwords(self) -> dict[str, str]:
        path = self.root / "secrets.json"
        if not path.exists():
            if (self.root / "postgres").exists():
                raise StackError(
                    f"{path} is missing, and with it the passwords of the database beside it.",
                    "Put it back from a backup, or start anew in another folder with --data.",
                )
            write_secret(path, json.dumps({name: secrets.token_urlsafe(24) for name in ("postgres", "app", "valkey")}))
        return json.loads(path.read_text())


def holder(root: Path) -> int | None:
    """The process that holds a data root, without taking it."""
    try:
        with (root / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read().strip() or -1)
    except FileNotFoundError:
        pass
    return None


def write_secret(path: Path, text: str) -> None:
    """Write `text` to `path`, readable by its owner only, all or nothing."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def sync_folder(path: Path) -> None:
    """Make renames in `path` last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
