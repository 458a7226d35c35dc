"""The stages of a job: what a child is told, and what stands in the database after it."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.blobs import BlobStore
from store.leases import claim
from store.tables import Shard
from tests.api.lab import Lab
from worker.supervisor import Supervisor
from worker.work import request

STEPS = (0, 3, 10, 30)
LLC = {"num_draws": 40, "num_burnin_steps": 10, "num_chains": 3, "batch_size": 4, "seed": 3}


@pytest.fixture
def measured(lab: Lab, supervisor: Supervisor) -> tuple[str, str, str]:
    """A series, its job, of which all is measured, and the shard that is to read its stages."""
    series = lab.series()
    for step in STEPS:
        lab.checkpoint(series, step)
    job = lab.job(series, measures={"loss": {}, "llc": LLC})
    with Session(lab.engine) as session:
        *shards, last = session.scalars(select(Shard.id).where(Shard.job_id == job).order_by(Shard.ordinal)).all()
    for shard in shards:
        supervisor.run(shard)
    return series, job, last


def test_the_child_is_told_of_every_chain(lab: Lab, measured: tuple[str, str, str]) -> None:
    _, job, last = measured
    with Session(lab.engine) as session:
        lease = claim(session, last, "worker", 30)
        assert lease is not None
        curve = request(session, lease, BlobStore(lab.blob_dir))["curve"]
        session.rollback()
    results = lab.get(f"/v1/jobs/{job}/results").json()["data"]
    llc = {row["step"]: row for row in results if row["measure"] == "llc"}
    assert curve["step"] == list(STEPS)
    assert curve["llc"] == [llc[step]["quantities"]["llc"]["value"] for step in STEPS]
    assert curve["per_chain"] == [llc[step]["details"]["per_chain"] for step in STEPS]
    assert [len(chains) for chains in curve["per_chain"]] == [3] * len(STEPS)


def test_they_are_kept_with_their_intervals(lab: Lab, supervisor: Supervisor, measured: tuple[str, str, str]) -> None:
    series, job, last = measured
    supervisor.run(last)
    assert lab.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    found = lab.get(f"/v1/series/{series}/stages").json()["data"]
    assert (found[0]["from_step"], found[-1]["to_step"]) == (STEPS[0], STEPS[-1])
    for stage in found:
        assert stage["from_step_low"] <= stage["from_step"] <= stage["from_step_high"]
        assert stage["to_step_low"] <= stage["to_step"] <= stage["to_step_high"]
        assert stage["delta_llc"]["std_error"] > 0
        assert stage["details"]["reason"]
        assert (stage["probability_a"] is None) == (stage["kind"] == "plateau")
