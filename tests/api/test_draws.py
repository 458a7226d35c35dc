"""Draws as files over HTTP; the part of a worker is played through the job protocol."""

from pathlib import Path
from typing import Any

import arviz_base
import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import draws as endpoint
from llc.draw_files import read_draws, write_draws
from store import leases
from store.blobs import BlobStore
from store.tables import Shard
from tests.api.lab import Lab, refused
from tests.lambdahat.lab import white_noise

STEPS = (0, 10)


def write_results(lab: Lab, job: str) -> dict[int, tuple[str, str]]:
    """End a job's first shard: step → (checkpoint, SHA-256 of its draws)."""
    blobs, files, rows = BlobStore(lab.blob_dir), {}, []
    with Session(lab.engine) as session, session.begin(), blobs.scratch() as scratch:
        scratch.mkdir(parents=True)
        shard = session.scalars(select(Shard.id).where(Shard.job_id == job, Shard.ordinal == 0)).one()
        lease = leases.claim(session, shard, "worker", 30)
        assert lease is not None
        found: dict[int, tuple[str, str]] = {}
        rest: dict[str, Any] = {"quantities": {}, "details": {}, "verdict": "ok", "reason": ""}
        for step, checkpoint in zip(STEPS, lease.checkpoint_ids, strict=True):
            write_draws(white_noise(step), scratch / "draws")
            sha256, size = blobs.adopt(scratch / "draws")
            files[sha256], found[step] = size, (checkpoint, sha256)
            rows.append({**rest, "checkpoint_id": checkpoint, "measure": "llc", "draws": sha256})
            rows.append({**rest, "checkpoint_id": checkpoint, "measure": "loss", "draws": None})
        leases.finish(session, lease, rows, blobs=files)
    return found


@pytest.fixture
def job(lab: Lab) -> str:
    """A job over two checkpoints."""
    series = lab.series()
    for step in STEPS:
        lab.checkpoint(series, step)
    return lab.job(series)


def test_the_file_comes_as_it_was_kept(lab: Lab, job: str, tmp_path: Path) -> None:
    found = write_results(lab, job)
    listed = {row["step"]: row for row in lab.get(f"/v1/jobs/{job}/results").json()["data"] if row["measure"] == "llc"}
    for step, (checkpoint, sha256) in found.items():
        assert (listed[step]["checkpoint"], listed[step]["draws"]) == (checkpoint, sha256)
        response = lab.get(f"/v1/jobs/{job}/draws/{checkpoint}")
        assert response.status_code == 200
        assert response.headers["etag"] == f'"{sha256}"'
        assert f"{checkpoint}.llc.safetensors" in response.headers["content-disposition"]
        (tmp_path / "draws").write_bytes(response.content)
        assert np.array_equal(read_draws(tmp_path / "draws").draws.losses, white_noise(step).draws.losses)
        rest = lab.get(f"/v1/jobs/{job}/draws/{checkpoint}", headers={"Range": "bytes=100-"})
        assert (rest.status_code, rest.content) == (206, response.content[100:])


def test_arviz_reads_what_is_converted(lab: Lab, job: str, tmp_path: Path) -> None:
    checkpoint, _ = write_results(lab, job)[10]
    before = lab.everything()
    response = lab.get(f"/v1/jobs/{job}/draws/{checkpoint}", params={"format": "netcdf"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/netcdf"
    assert int(response.headers["content-length"]) == len(response.content)
    path = tmp_path / response.headers["content-disposition"].split('"')[1]
    assert path.suffix == ".nc"
    path.write_bytes(response.content)
    with arviz_base.convert_to_datatree(str(path)) as tree:
        posterior: Any = tree["posterior"]
        assert np.array_equal(posterior.potential.values, np.moveaxis(white_noise(10).draws.potentials, 0, 2))
    assert lab.everything() == before


def test_what_is_too_large_to_convert_is_refused(lab: Lab, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, _ = write_results(lab, job)[0]
    monkeypatch.setattr(endpoint, "MAX_CONVERTED_BYTES", 1000)
    problem = refused(
        lab.get(f"/v1/jobs/{job}/draws/{checkpoint}", params={"format": "netcdf"}), 422, "too_large_to_convert"
    )
    assert "safetensors" in problem["hint"]
    assert lab.get(f"/v1/jobs/{job}/draws/{checkpoint}").status_code == 200


def test_there_are_none_where_none_are(lab: Lab, other_lab: Lab, job: str) -> None:
    checkpoint, sha256 = write_results(lab, job)[0]
    path = f"/v1/jobs/{job}/draws/{checkpoint}"
    refused(other_lab.get(path), 404, "not_found")
    refused(lab.get(path, params={"measure": "loss"}), 404, "not_found")
    for odd in ("%00", "nonsense"):
        refused(lab.get(f"{path}?measure={odd}"), 404, "not_found")
        refused(lab.get(f"/v1/jobs/{job}/draws/{odd}"), 404, "not_found")
    refused(lab.get(path, params={"format": "pickle"}), 422, "invalid_request")
    (BlobStore(lab.blob_dir).path(sha256)).unlink()
    problem = refused(lab.get(path), 404, "not_found")
    assert "run the job again" in problem["hint"]
