"""The draws of a job: from the chains through a real child and supervisor to the blobs, and back to the same number."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from llc import estimators, health
from llc.draw_files import KeptDraws, read_draws
from llc.settings import LLCSettings
from store.blobs import BlobStore
from store.tables import Shard
from tests.api.lab import Lab
from tests.worker.conftest import STEPS
from worker.supervisor import Supervisor

LLC = {"num_draws": 40, "num_burnin_steps": 10, "num_chains": 3, "batch_size": 4, "num_probe_samples": 5, "seed": 3}


def finished(lab: Lab, supervisor: Supervisor, series: str, **llc: Any) -> dict[tuple[int, str], dict[str, Any]]:
    """(step, measure) → result of a job that a worker has run."""
    job = lab.job(series, measures={"loss": {}, "llc": {**LLC, **llc}}, checkpoints_per_shard=1)
    with Session(lab.engine) as session:
        shards = session.scalars(select(Shard.id).where(Shard.job_id == job).order_by(Shard.ordinal)).all()
    for shard in shards:
        supervisor.run(shard)
    assert lab.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    assert list((lab.blob_dir / "uploads").iterdir()) == []
    return {(row["step"], row["measure"]): row for row in lab.get(f"/v1/jobs/{job}/results").json()["data"]}


def kept(lab: Lab, result: dict[str, Any]) -> KeptDraws:
    return read_draws(BlobStore(lab.blob_dir).path(result["draws"]))


def test_the_number_is_made_again_from_the_file_alone(lab: Lab, supervisor: Supervisor, series: str) -> None:
    results = finished(lab, supervisor, series)
    for step in STEPS:
        result, found = results[step, "llc"], kept(lab, results[step, "llc"])
        assert found.settings == LLCSettings.model_validate(LLC)
        assert found.rows == ("llc",)
        assert found.draws.losses.shape == (1, 3, 40)
        assert found.draws.probe_losses.size == 0
        estimate = estimators.llc(found.draws, 0, found.settings.step_error)
        assert (estimate.value, estimate.std_error) == tuple(result["quantities"]["llc"].values())[:2]
        wbic = estimators.wbic(estimate, float(found.draws.nbeta[0]), found.loss, found.num_samples)
        assert (wbic.value, wbic.std_error) == tuple(result["quantities"]["wbic"].values())[:2]
        verdict = health.judge(found.draws, 0, estimate, found.settings.health)
        assert (verdict.name, verdict.reason) == (result["verdict"], result["reason"])
        assert results[step, "loss"]["draws"] is None
    assert results[0, "llc"]["draws"] != results[10, "llc"]["draws"]


def test_the_same_job_again_leaves_the_same_files(lab: Lab, supervisor: Supervisor, series: str) -> None:
    first = finished(lab, supervisor, series)
    before = lab.everything()[1]
    again = finished(lab, supervisor, series)
    assert {key: row["draws"] for key, row in again.items()} == {key: row["draws"] for key, row in first.items()}
    assert lab.everything()[1] == before


@pytest.mark.parametrize(("keep_draws", "samples"), [("samples", 5), ("none", None)])
def test_as_much_is_kept_as_is_asked_for(
    lab: Lab, supervisor: Supervisor, series: str, keep_draws: str, samples: int | None
) -> None:
    result = finished(lab, supervisor, series, keep_draws=keep_draws)[0, "llc"]
    if samples is None:
        assert result["draws"] is None
    else:
        assert kept(lab, result).draws.probe_losses.shape == (1, 3, 4, samples)


@pytest.mark.parametrize("where", ["uploads", "blobs"])
def test_a_disk_that_refuses_the_file_is_said_and_tried_again(
    lab: Lab, supervisor: Supervisor, series: str, tmp_path: Path, where: str
) -> None:
    draws = finished(lab, supervisor, series)[0, "llc"]["draws"]
    folder = lab.blob_dir / "uploads" if where == "uploads" else BlobStore(lab.blob_dir).path(draws).parent
    job = lab.job(series, measures={"loss": None, "llc": LLC})
    with Session(lab.engine) as session:
        shard = session.scalars(select(Shard).where(Shard.job_id == job, Shard.ordinal == 0)).one()
    folder.rename(tmp_path / "aside")
    folder.write_text("no folder")
    try:
        supervisor.run(shard.id)
    finally:
        folder.unlink()
        (tmp_path / "aside").rename(folder)
    with Session(lab.engine) as session:
        shard = session.get_one(Shard, shard.id)
        assert (shard.state, shard.attempt) == ("queued", 1)
        assert shard.error is not None
        assert str(folder) in shard.error["detail"]
    assert lab.get(f"/v1/jobs/{job}/results").json()["data"] == []
