"""A lab with a short series, and a supervisor that runs its shards."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from store.settings import StoreSettings
from tests.api.conftest import new_lab, serving
from tests.api.lab import Lab
from worker.supervisor import Supervisor

STEPS = (0, 10)


@pytest.fixture(scope="package")
def lab(database_url: str, broker_url: str, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    blob_dir = tmp_path_factory.mktemp("blobs")
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "BLOB_DIR": str(blob_dir)}
    with (
        serving({f"LAMBDAHAT_{name}": value for name, value in environment.items()}) as url,
        new_lab(url, engine, blob_dir) as lab,
    ):
        yield lab


@pytest.fixture(scope="package")
def series(lab: Lab) -> str:
    series = lab.series()
    for step in STEPS:
        lab.checkpoint(series, step)
    return series


@pytest.fixture(scope="package")
def supervisor(database_url: str, broker_url: str, lab: Lab) -> Iterator[Supervisor]:
    supervisor = Supervisor(StoreSettings(database_url=database_url, broker_url=broker_url, blob_dir=lab.blob_dir))
    yield supervisor
    supervisor.stop()
