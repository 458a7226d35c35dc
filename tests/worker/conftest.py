"""A lab with a short series, and a supervisor that runs its shards."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from store.settings import StoreSettings
from tests.api.conftest import lab_of_its_own
from tests.api.lab import Lab
from worker.supervisor import Supervisor

STEPS = (0, 10)


@pytest.fixture(scope="package")
def lab(database_url: str, broker_url: str, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_of_its_own(database_url, broker_url, engine, tmp_path_factory.mktemp("blobs")) as lab:
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
