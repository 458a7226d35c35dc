"""The real service under uvicorn on loopback, over the real PostgreSQL; a fresh tenant for each test."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.app import create_app
from store import keys, tenants
from store.ids import new_id
from tests.api.lab import Lab


@pytest.fixture(scope="session")
def blob_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps its blobs."""
    return tmp_path_factory.mktemp("blobs")


@pytest.fixture(scope="session")
def environment(database_url: str, broker_url: str, blob_dir: Path) -> dict[str, str]:
    """What configures the service."""
    return {
        "LAMBDAHAT_DATABASE_URL": database_url,
        "LAMBDAHAT_BROKER_URL": broker_url,
        "LAMBDAHAT_BLOB_DIR": str(blob_dir),
        "LAMBDAHAT_MAX_BLOB_BYTES": "3000000",
        "LAMBDAHAT_WEBHOOK_NETWORKS": "192.0.2.0/24",  # of documentation: should anything be sent, it arrives nowhere
    }


def configured(environment: dict[str, str]) -> FastAPI:
    """A service of its own, not served."""
    with pytest.MonkeyPatch.context() as patch:  # only while it reads its settings
        for name, value in environment.items():
            patch.setenv(name, value)
        return create_app()


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    """The URL of a service of its own, in a thread."""
    app = configured(environment)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the service did not start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def url(environment: dict[str, str]) -> Iterator[str]:
    """The service that most tests share."""
    with serving(environment) as url:
        yield url


@pytest.fixture
def lab(url: str, engine: Engine, blob_dir: Path) -> Iterator[Lab]:
    """A fresh tenant with a key."""
    with new_lab(url, engine, blob_dir) as lab:
        yield lab


@pytest.fixture
def other_lab(url: str, engine: Engine, blob_dir: Path) -> Iterator[Lab]:
    """Another tenant."""
    with new_lab(url, engine, blob_dir) as lab:
        yield lab


@contextmanager
def new_lab(url: str, engine: Engine, blob_dir: Path) -> Iterator[Lab]:
    """A tenant and its client."""
    with Session(engine) as session, session.begin():
        tenant = tenants.ensure_tenant(session, new_id("ten"))
        tenant_id, key = tenant.id, keys.create_key(session, tenant.id, "test")
    with Lab(url, key, tenant_id, engine, blob_dir) as lab:
        yield lab


@contextmanager
def lab_of_its_own(database_url: str, broker_url: str, engine: Engine, blob_dir: Path) -> Iterator[Lab]:
    """A fresh tenant of a service with a folder of blobs of its own."""
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "BLOB_DIR": str(blob_dir)}
    with (
        serving({f"LAMBDAHAT_{name}": value for name, value in environment.items()}) as url,
        new_lab(url, engine, blob_dir) as lab,
    ):
        yield lab
