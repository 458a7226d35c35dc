"""Backup, restore and upgrade of a data root. The data are read and written by `python -m store.admin`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lambdahat.stack.doctor import environment_of
from lambdahat.stack.errors import StackError
from lambdahat.stack.folder import DataFolder, holder, sync_folder
from lambdahat.stack.postgres import HALF_DONE, HOME, WHOLE, Postgres

Show = Callable[[int, int], None]
"""Is told how many bytes are done, of how many."""


def back_up(root: Path, target: Path, show: Show) -> tuple[Path, list[str]]:
    """Write a backup of a data root, whether its stack runs or not; or of the servers that the environment names.

    target: a new file, or a folder to put one into. Returns the file, and the blobs that were missing.
    Errors: StackError.
    """
    if target.is_dir():
        target /= f"lambdahat-{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}.tar"
    target = target.absolute()
    with _reachable(root) as environment:
        return target, admin(environment, "backup", str(target), show=show)["missing"]


def restore(root: Path, source: Path, show: Show) -> list[str]:
    """Restore a backup into a data root without a database, or into the empty one that the environment names.

    Returns the blobs that were missing when it was made. Errors: StackError; nothing of it is there then.
    """
    if os.environ.get("LAMBDAHAT_DATABASE_URL"):
        return admin(environment_of(root), "restore", str(source.absolute()), show=show)["missing"]
    with DataFolder(root) as folder:
        if (folder.root / HOME).exists():
            raise StackError(
                f"{folder.root} holds a database already.", "Choose another folder with --data, or move that one away."
            )
        with new_database(folder) as environment:
            return admin(environment, "restore", str(source.absolute()), show=show)["missing"]


@contextmanager
def new_database(folder: DataFolder, aside: Path | None = None) -> Iterator[dict[str, str]]:
    """The variables that name a new, empty database, which is the data root's once all has gone well.

    aside: where the one before goes.
    """
    new, whole, home = (folder.root / name for name in (HALF_DONE, WHOLE, HOME))
    try:
        postgres = Postgres(folder, HALF_DONE)
        with postgres.running():
            postgres.ensure_database()
            yield environment_of(folder.root) | {"LAMBDAHAT_DATABASE_URL": postgres.url}
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    steps = [(new, whole), *([(home, aside)] if aside else []), (whole, home)]
    for old_name, new_name in steps:  # `Postgres.initialise` takes the last, should we be killed between them
        old_name.rename(new_name)
        sync_folder(folder.root)


@contextmanager
def _reachable(root: Path) -> Iterator[dict[str, str]]:
    """The variables that name the database of a data root, which is started if it does not run."""
    if os.environ.get("LAMBDAHAT_DATABASE_URL") or holder(root) is not None:
        yield environment_of(root)
    elif not (root / HOME).exists():
        raise StackError(f"There is no database in {root}.", "--data names the folder of lambdahat serve.")
    else:
        with DataFolder(root) as folder, Postgres(folder).running():
            yield environment_of(root)


def admin(environment: Mapping[str, str], *arguments: str, show: Show) -> dict[str, Any]:
    """The last line of `python -m store.admin`, and its progress meanwhile. Errors: StackError with what it said."""
    needed = {"LAMBDAHAT_BROKER_URL": "memory://", "PYTHONSAFEPATH": "1"}  # it sends no hints
    with subprocess.Popen(
        [sys.executable, "-m", "store.admin", *arguments],
        env={**os.environ, **needed, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        said: dict[str, Any] = {}
        for line in process.stdout:
            said = json.loads(line)
            if "done" in said:
                show(said["done"], said["total"])
        words = process.stderr.read().strip()
    if process.returncode:
        raise StackError(words.removeprefix("error: ") or f"store.admin {arguments[0]} ended with {process.returncode}")
    return said
