"""Backup, restore and upgrade of a data root, by the commands that an operator types."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg import sql

from lambdahat import Client
from lambdahat.objects import Job
from lambdahat.stack import Stack, StackError
from lambdahat.stack.archive import admin
from lambdahat.stack.doctor import check_data_root, environment_of
from lambdahat.stack.folder import DataFolder
from lambdahat.stack.postgres import ADMIN, HOME, WHOLE, Postgres
from tests.lambdahat.lab import SPEC, data, state

OLD = 15
OLD_PROGRAMS = Path(f"/usr/lib/postgresql/{OLD}/bin")
MEASURES = {"loss": {}, "llc": {"num_chains": 2, "num_burnin_steps": 5, "num_draws": 20, "batch_size": 4}}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of data roots: with a short path, open to the servers' account."""
    path = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def lambdahat(*arguments: object, status: int = 0) -> str:
    """What a command says."""
    command = [str(Path(sys.executable).with_name("lambdahat")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def ended(client: Client, job: Job) -> Job:
    found = client.wait(job, timeout=120)
    assert found.state == "succeeded", found
    return found


def test_a_backup_of_a_running_stack_is_all_of_it(folder: Path) -> None:
    first, second = folder / "first", folder / "second"
    with Stack(first, port=0, workers=1) as stack, Client(stack.url, stack.key) as client:
        series = client.create_series("run", client.create_model("mlp", SPEC), client.create_dataset("d", data()))
        for step in range(3):
            client.add_checkpoint(series, step, state(step))
        done = ended(client, client.run(series, MEASURES))
        os.kill(stack.pids()["worker"], signal.SIGSTOP)
        queued = client.run(series, {"loss": {}})
        assert f"{folder / 'b.tar'}" in lambdahat("backup", folder / "b.tar", "--data", first)
        assert client.job(queued).state == "queued"
        os.kill(stack.pids()["worker"], signal.SIGKILL)
        curve, drawn = client.curve(series, job=done), client.draws(done, next(client.results(done)).checkpoint)
        key = stack.key
    assert "there already" in lambdahat("backup", folder / "b.tar", "--data", first, status=1)
    lambdahat("backup", folder, "--data", first)  # stopped
    (named,) = folder.glob("lambdahat-*.tar")
    with tarfile.open(named) as tar:
        assert tar.getnames()[-1] == "end.json"
    shutil.rmtree(first)

    (folder / "half.tar").write_bytes((folder / "b.tar").read_bytes()[:-20_000])
    assert "damaged" in lambdahat("restore", folder / "half.tar", "--data", second, status=1)
    assert {path.name for path in second.iterdir()} <= {
        "lock",
        "secrets.json",
        "run",
        "logs",
        "metrics",
        "blobs",
        "programs",
    }
    assert not [path for path in (second / "blobs").rglob("*") if path.is_file()]

    lambdahat("restore", folder / "b.tar", "--data", second)
    with Stack(second, port=0, workers=1) as stack, Client(stack.url, key) as client:
        assert client.curve(series, job=done) == curve
        again = client.draws(done, next(client.results(done)).checkpoint)
        assert again.arrays.keys() == drawn.arrays.keys()
        for name, array in drawn.arrays.items():
            np.testing.assert_array_equal(again[name], array)
        ended(client, queued)
    assert "holds a database already" in lambdahat("restore", folder / "b.tar", "--data", second, status=1)


def old_database(held: DataFolder) -> Postgres:
    """As an earlier version of the embedded PostgreSQL would have made it."""
    data, password = held.root / HOME, held.root / "password"
    data.mkdir()
    password.write_text(held.passwords["postgres"])
    for path in (data, password):
        held.account.give(path)
    command = [OLD_PROGRAMS / "initdb", "-D", data, "-U", ADMIN, f"--pwfile={password}", "--auth=scram-sha-256"]
    subprocess.run(
        [*command, "--encoding=UTF8", "--locale=C", "--no-sync"],
        user=held.account.uid,
        group=held.account.gid,
        extra_groups=[] if held.account.switch else None,
        cwd="/",
        stdout=subprocess.DEVNULL,
        check=True,
    )
    password.unlink()
    return Postgres(held, HOME, OLD_PROGRAMS / "postgres")


def tenants(postgres: Postgres) -> list[str]:
    with psycopg.connect(postgres.url) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM tenants ORDER BY name")]


# An upgrade is from another major version, and the package index has wheels of one only. Debian's stands for the other.
@pytest.mark.skipif(not OLD_PROGRAMS.exists(), reason=f"data to upgrade are made by apt install postgresql-{OLD}")
def test_data_of_another_major_version_are_brought_over(folder: Path) -> None:
    root = folder / "root"
    with DataFolder(root) as held:
        old = old_database(held)
        with old.running():
            old.ensure_database()
            admin(environment_of(root), "migrate", show=lambda *_: None)
            key = admin(environment_of(root), "ensure-tenant", "--name", "the lab", show=lambda *_: None)["key"]
            names = tenants(old)
    with pytest.raises(StackError, match=f"made by PostgreSQL {OLD}") as refused:
        Stack(root, port=0).start()
    assert "lambdahat upgrade" in refused.value.hint
    (seen,) = check_data_root(root)
    assert (seen.state, seen.hint) == ("broken", f"lambdahat upgrade --data {root}")
    assert "no PostgreSQL" in lambdahat("upgrade", "--data", root, "--postgres", folder, status=1)
    assert (root / HOME / "PG_VERSION").read_text().strip() == str(OLD)

    said = lambdahat("upgrade", "--data", root)
    assert f"from PostgreSQL {OLD}" in said
    assert "already" in lambdahat("upgrade", "--data", root)
    assert (root / f"{HOME}.{OLD}" / "PG_VERSION").read_text().strip() == str(OLD)
    # As it would be found had the upgrade been killed before its last step.
    (root / HOME).rename(root / WHOLE)
    with DataFolder(root) as held, Postgres(held).running():
        assert tenants(Postgres(held)) == names == ["the lab"]
        assert key
        with psycopg.connect(Postgres(held).url) as connection:
            (hashes,) = connection.execute(sql.SQL("SELECT count(*) FROM api_keys")).fetchone() or (0,)
        assert hashes == 1
