"""Every hostile file, posted over HTTP: refused with a code, the file named, nothing left behind, and nothing run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.api.conftest import lab_of_its_own
from tests.api.lab import Lab, created, refused
from tests.hostile.files import CANARY, FILES, good_files

CODES = {"bad_safetensors", "bad_torch_file", "not_finite", "missing_parameter", "wrong_shape", "unexpected_parameter"}


@pytest.fixture(scope="module")
def lab(database_url: str, broker_url: str, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Of a service with a folder of its own, for all files: none of them may leave anything behind."""
    with lab_of_its_own(database_url, broker_url, engine, tmp_path_factory.mktemp("blobs")) as lab:
        yield lab


@pytest.fixture(scope="module")
def series(lab: Lab) -> str:
    return lab.series()


@pytest.fixture(autouse=True)
def _canary() -> Iterator[None]:
    CANARY.unlink(missing_ok=True)
    yield
    assert not CANARY.exists()


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused(lab: Lab, series: str, name: str) -> None:
    blob = lab.upload(FILES[name]())
    before = lab.everything()
    answer = lab.post(f"/v1/series/{series}/checkpoints", json={"step": 1, "blob": blob})
    problem = refused(answer, 422, answer.json().get("code"))
    assert problem["code"] in CODES
    assert blob in problem["detail"]
    assert problem["hint"]
    assert len(answer.content) < 5_000
    answer = lab.post("/v1/datasets", json={"name": "data", "blob": blob})
    problem = refused(answer, 422, answer.json().get("code"))
    assert problem["code"] in {"bad_safetensors", "bad_data", "unequal_lengths"}
    assert blob in problem["detail"]
    assert lab.everything() == before


def test_the_good_ones_are_taken(lab: Lab, series: str) -> None:
    """So that the others are refused for what is wrong with them."""
    for step, (name, content) in enumerate(good_files().items()):
        blob = lab.upload(content)
        if name.startswith("data"):
            created(lab.post("/v1/datasets", json={"name": "data", "blob": blob}))
        else:
            created(lab.post(f"/v1/series/{series}/checkpoints", json={"step": 10 + step, "blob": blob}))


def test_they_would_run(tmp_path: Path) -> None:
    """The canary is one: a pickle of it, read by Python's own, makes the file."""
    import pickle

    (tmp_path / "file").write_bytes(FILES["a bare pickle"]())
    with (tmp_path / "file").open("rb") as file:
        pickle.load(file).close()
    assert CANARY.exists()
    CANARY.unlink()
