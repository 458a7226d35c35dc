"""The real API process over the real PostgreSQL, and a fresh tenant for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lambdahat import Client
from tests.lambdahat import lab
from tests.lambdahat.service import Service
from tests.receiver import HERE


@pytest.fixture(scope="session")
def environment(database_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What configures the service."""
    return {
        "LAMBDAHAT_DATABASE_URL": database_url,
        "LAMBDAHAT_BROKER_URL": broker_url,
        "LAMBDAHAT_BLOB_DIR": str(tmp_path_factory.mktemp("blobs")),
        **HERE,
    }


@pytest.fixture(scope="session")
def service(environment: dict[str, str]) -> Iterator[Service]:
    """The service that most tests share."""
    with Service(environment) as service:
        yield service


@pytest.fixture
def key(engine: Engine, request: pytest.FixtureRequest) -> str:
    """A key of a tenant that nobody else uses."""
    return lab.new_key(engine, request.node.name)


@pytest.fixture
def client(service: Service, key: str) -> Iterator[Client]:
    """A client of that tenant."""
    with Client(service.url, key) as client:
        yield client


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No server or key of the person who runs the tests; recorders spool into the test's folder."""
    monkeypatch.delenv("LAMBDAHAT_URL", raising=False)
    monkeypatch.delenv("LAMBDAHAT_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
