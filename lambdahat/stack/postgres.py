"""One embedded PostgreSQL: made once, reached by a Unix socket only, its passwords scram-hashed."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from lambdahat.stack.errors import StackError
from lambdahat.stack.folder import DataFolder, sync_folder
from lambdahat.stack.process import Child, Program, run
from lambdahat.stack.programs import POSTGRES, find_program

ADMIN = "postgres"
APP = "lambdahat"
HOME = "postgres"
HALF_DONE = ".postgres-new"
WHOLE = "postgres.new"
"""A database that is being restored, and one that has been and waits for its place."""

INITDB_SECONDS = 120.0
START_SECONDS = 60.0
PREDECESSOR_SECONDS = 10.0


def socket_url(role: str, password: str, run: Path) -> str:
    """The URL of the role's own database, by a socket in a folder."""
    return f"postgresql://{role}:{quote(password)}@/{role}?host={quote(str(run), safe='')}"


def version_of(home: Path) -> int:
    """The major version of the PostgreSQL that made a folder."""
    return int((home / "PG_VERSION").read_text())


def version_of_program(program: Path) -> int:
    """Its major version. Errors: StackError when it doesn't run."""
    try:
        # `postgres (PostgreSQL) 15.12 (Debian 15.12-0+deb12u2)`
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        return int(said.split("(PostgreSQL)")[1].split()[0].split(".")[0])
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError) as error:
        raise StackError(f"{program} is no PostgreSQL that runs here: {error}.") from error


class Postgres:
    """The server of a data root. `child` runs it; `admin_url` and `url` reach it.

    home: the folder of its files in the data root; program: another `postgres` than the wheel's.
    """

    def __init__(self, folder: DataFolder, home: str = HOME, program: Path | None = None) -> None:
        self._folder = folder
        self._home = folder.root / home
        self._program = program or find_program(POSTGRES, folder)
        self.admin_url = socket_url(ADMIN, folder.passwords["postgres"], folder.run)
        self.url = socket_url(APP, folder.passwords["app"], folder.run)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{folder.run}"',
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "logging_collector": "off",
        }
        self.child = Child(
            Program(
                name="postgres",
                command=[self._program, "-D", self._home, *(f"--{key}={value}" for key, value in settings.items())],
                log=folder.logs / "postgres.log",
                environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                account=folder.account,
                before=self._clear_the_way,
                stop_signal=signal.SIGINT,  # fast: ends sessions, writes a checkpoint
                stop_seconds=20.0,
                # Immediate: gone at once even under load, and the write-ahead log makes the next start whole.
                death_signal=signal.SIGQUIT,
            )
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Made if new, started, ready; stopped at the end."""
        self.initialise()
        with self.child.running():
            self.wait()
            yield

    def initialise(self) -> None:
        """Make the database cluster, if there is none: in a temporary folder that is renamed when it is whole."""
        for half_done in self._folder.root.glob(".postgres-*"):
            shutil.rmtree(half_done)
        whole = self._folder.root / WHOLE
        if whole.exists() and self._home.name == HOME and not self._home.exists():
            whole.rename(self._home)
            sync_folder(self._folder.root)
        if self._home.exists():
            self._check_version()
            return
        account = self._folder.account
        temporary = Path(tempfile.mkdtemp(prefix=".postgres-", dir=self._folder.root))
        password = temporary / "password"
        password.write_text(self._folder.passwords["postgres"])
        password.chmod(0o600)
        account.give(password)
        account.give(temporary)
        command = [
            *(self._program.with_name("initdb"), "-D", temporary / "data", "-U", ADMIN, f"--pwfile={password}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        initdb = dataclasses.replace(self.child.program, name="initdb", command=command, before=lambda: None)
        run(initdb, INITDB_SECONDS)
        (temporary / "data").rename(self._home)  # initdb has fsynced what is in it
        sync_folder(self._folder.root)
        shutil.rmtree(temporary)

    def wait(self) -> None:
        """Wait until it answers."""
        self.child.wait_until(self._answers, START_SECONDS)

    def ensure_database(self) -> None:
        """Make the application's role and database, if they are missing."""
        role, database = sql.Identifier(APP), sql.Identifier(APP)
        password = sql.Literal(self._folder.passwords["app"])
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [APP]).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [APP]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.admin_url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _check_version(self) -> None:
        made_by, ours = version_of(self._home), version_of_program(self._program)
        if made_by != ours:
            raise StackError(
                f"The database in {self._home} was made by PostgreSQL {made_by}; the installed one is {ours}.",
                f"lambdahat upgrade --data {self._folder.root} brings the data over, and keeps the old folder.",
            )

    def _clear_the_way(self) -> None:
        """Remove a pid file whose number is another program's by now: PostgreSQL would mistake it for a live server.

        A file whose number is free stays: PostgreSQL finds by it whether memory of a crashed server is still in use.
        Processes of a predecessor on their way out (its supervisor was killed) are waited for.
        """
        deadline = time.monotonic() + PREDECESSOR_SECONDS
        while (pid := self._live_process()) is not None:
            if time.monotonic() > deadline:
                raise StackError(f"A PostgreSQL (process {pid}) already runs in {self._home}.", "Stop it first.")
            time.sleep(0.05)
        for lock in (self._home / "postmaster.pid", self._folder.run / ".s.PGSQL.5432.lock"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                if psutil.pid_exists(int(lock.read_text().split("\n", 1)[0])):
                    lock.unlink()

    def _live_process(self) -> int | None:
        """A process of a PostgreSQL of this very folder: each of them works in it."""
        for process in psutil.process_iter(["name"]):
            if process.info["name"].startswith("postgres"):
                with contextlib.suppress(psutil.Error):  # ended meanwhile, or another user's and so not ours
                    if process.cwd() == str(self._home) and process.status() != psutil.STATUS_ZOMBIE:
                        return process.pid
        return None
