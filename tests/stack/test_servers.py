"""The embedded servers: made once, found again, locked, replaced when killed, gone when their supervisor is."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from kombu.connection import Connection

from lambdahat.stack.errors import StackError
from lambdahat.stack.folder import LONGEST_SOCKET_FOLDER, DataFolder
from lambdahat.stack.postgres import Postgres
from lambdahat.stack.programs import POSTGRES, VALKEY, Wheel, find_program
from lambdahat.stack.valkey import Valkey

IS_ROOT = os.geteuid() == 0
"""Root's servers run as somebody else, an ordinary user's as that user."""


@pytest.fixture
def root() -> Iterator[Path]:
    """A data root with a short path, open to the servers' account."""
    path = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def carry_a_message(url: str) -> None:
    with Connection(url) as connection, connection.SimpleQueue("test") as queue:
        queue.put({"id": 1})
        assert queue.get(timeout=5).payload == {"id": 1}


def test_postgres_has_checksums_and_scram_and_no_port(embedded_postgres_url: str) -> None:
    with psycopg.connect(embedded_postgres_url) as connection:
        rows = connection.execute(
            "SELECT name, setting FROM pg_settings "
            "WHERE name IN ('data_checksums', 'listen_addresses', 'server_encoding')"
        ).fetchall()
        hashed = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").fetchone()
    assert dict(rows) == {"data_checksums": "on", "listen_addresses": "", "server_encoding": "UTF8"}
    assert hashed is not None
    assert hashed[0].startswith("SCRAM-SHA-256$")


def test_postgres_wants_the_password(embedded_postgres_url: str) -> None:
    scheme, rest = embedded_postgres_url.split("://postgres:")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"{scheme}://postgres:wrong@{rest.split('@')[1]}")


def test_valkey_carries_a_message(embedded_broker_url: str) -> None:
    carry_a_message(embedded_broker_url)


@pytest.mark.usefixtures("embedded_postgres_url", "embedded_broker_url")
def test_secrets_are_private_and_never_on_a_command_line(servers_folder: DataFolder) -> None:
    secret = servers_folder.root / "secrets.json"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert servers_folder.run.stat().st_mode & 0o777 == 0o700
    lines = "\n".join(" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    assert str(servers_folder.root) in lines
    assert not [name for name, password in servers_folder.passwords.items() if password in lines]


def test_data_survive_a_restart_and_a_kill(root: Path) -> None:
    with DataFolder(root) as folder:
        postgres = Postgres(folder)
        with postgres.running():
            postgres.ensure_database()
            with psycopg.connect(postgres.url) as connection:
                connection.execute("CREATE TABLE kept (n int)")
                connection.execute("INSERT INTO kept VALUES (7)")
            first = postgres.child.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            deadline = time.monotonic() + 20
            while postgres.child.pid in (None, first):
                postgres.child.watch()
                assert time.monotonic() < deadline, postgres.child.ending()
                time.sleep(0.05)
            postgres.wait()
    with DataFolder(root) as folder:
        postgres = Postgres(folder)
        with postgres.running(), psycopg.connect(postgres.url) as connection:
            postgres.ensure_database()
            assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]


def test_a_half_made_database_is_made_anew(root: Path) -> None:
    half_done = root / ".postgres-gone" / "data"
    half_done.mkdir(parents=True)
    root.chmod(0o711)
    with DataFolder(root) as folder, Postgres(folder).running():
        assert not half_done.exists()
        assert (root / "postgres" / "PG_VERSION").exists()


def test_a_pid_file_whose_number_is_another_process_is_no_hindrance(root: Path) -> None:
    with DataFolder(root) as folder:
        postgres = Postgres(folder)
        postgres.initialise()
        # A process of the same account, which PostgreSQL alone would take for a live server.
        other = subprocess.Popen(
            [shutil.which("sleep") or "sleep", "60"],
            user=folder.account.uid,
            group=folder.account.gid,
            extra_groups=[] if folder.account.switch else None,
        )
        try:
            (root / "postgres" / "postmaster.pid").write_text(f"{other.pid}\n{root / 'postgres'}\n0\n5432\n\n\n")
            folder.account.give(root / "postgres" / "postmaster.pid")
            with postgres.running():
                assert postgres.child.pid is not None
        finally:
            other.kill()
            other.wait()


def test_a_live_server_of_the_same_folder_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lambdahat.stack.postgres.PREDECESSOR_SECONDS", 0.2)
    with DataFolder(root) as folder:
        first = Postgres(folder)
        with first.running():
            with pytest.raises(StackError, match=f"process {first.child.pid}"), Postgres(folder).running():
                pytest.fail("two servers on one folder")
            with psycopg.connect(first.admin_url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)


def test_one_process_at_a_time(root: Path) -> None:
    with DataFolder(root), pytest.raises(StackError, match=f"in use by process {os.getpid()}"):
        DataFolder(root)
    DataFolder(root).close()


def test_a_lost_password_is_told(root: Path) -> None:
    with DataFolder(root) as folder:
        Postgres(folder).initialise()
    (root / "secrets.json").unlink()
    with pytest.raises(StackError, match=r"secrets\.json is missing"):
        DataFolder(root)
    assert not (root / "secrets.json").exists()


def test_a_long_path_gets_a_short_one_for_its_sockets(root: Path) -> None:
    long = root / ("x" * LONGEST_SOCKET_FOLDER)
    root.chmod(0o711)
    for _ in range(2):  # the second time finds the first one's
        with DataFolder(long) as folder:
            valkey = Valkey(folder)
            with valkey.running():
                carry_a_message(valkey.url)
            assert (long / "run").resolve() == folder.run
    shutil.rmtree((long / "run").resolve())


def test_a_missing_wheel_says_what_to_do(servers_folder: DataFolder) -> None:
    wheel = Wheel("no-such-server", "no_such_server", "no_such_server/bin/x", (), "LAMBDAHAT_BROKER_URL")
    with pytest.raises(StackError) as caught:
        find_program(wheel, servers_folder)
    assert "no-such-server" in caught.value.detail
    assert "LAMBDAHAT_BROKER_URL" in caught.value.hint


def test_a_folder_with_something_in_it_is_never_opened_to_others(root: Path) -> None:
    (root / "mine").mkdir()
    refused = pytest.raises(StackError, match="can't be reached") if IS_ROOT else nullcontext()
    with DataFolder(root) as folder, refused:
        Postgres(folder)
    assert root.stat().st_mode & 0o777 == 0o700


def test_programs_out_of_the_servers_reach_are_copied(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as closed, DataFolder(root) as folder:  # 0700
        for wheel in (POSTGRES, VALKEY):
            site = Path(find_program(wheel, folder)).parents[wheel.program.count("/")]
            for name in wheel.folders:
                target = Path(closed) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(site / name)
            (Path(closed) / wheel.package / "__init__.py").touch()
            monkeypatch.delitem(sys.modules, wheel.package, raising=False)
        monkeypatch.syspath_prepend(closed)
        postgres, valkey = Postgres(folder), Valkey(folder)
        with valkey.running(), postgres.running():
            pid = postgres.child.pid
            assert pid is not None
            assert Path(psutil.Process(pid).exe()).is_relative_to(root / "programs") == IS_ROOT
        assert all(path.stat().st_uid == 0 for path in (root / "programs").rglob("*"))
        assert not list((root / "programs").glob(".*"))


def test_no_orphan_when_the_supervisor_is_killed(root: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("driver.py"), root], stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout
        servers = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
        family = [process for server in servers for process in (server, *server.children(recursive=True))]
        names = set[str]()
        for process in family:
            with suppress(psutil.NoSuchProcess):  # PostgreSQL's come and go
                names.add(process.name().split(":")[0])
        assert names >= {"postgres", "valkey-server"}
        with pytest.raises(StackError, match=f"in use by process {driver.pid}"):
            DataFolder(root)
    finally:
        driver.kill()
        driver.communicate()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    with DataFolder(root) as folder, Postgres(folder).running():
        pass
