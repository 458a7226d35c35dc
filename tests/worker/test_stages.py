"""The stages of a job: what a child is told, and what stands in the database after it."""

import pytest
from sqlalchemy import select, text
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


def test_the_members_of_an_ensemble_are_measured_and_read(lab: Lab, supervisor: Supervisor) -> None:
    """In one job; their chains that left are no part of their curves."""
    series = lab.series()
    for step in STEPS:
        lab.checkpoint(series, step)
    job = lab.job(series, measures={"loss": {}, "llc": LLC | {"stability": {"num_members": 2}}})
    with Session(lab.engine) as session:
        *shards, last = session.scalars(select(Shard.id).where(Shard.job_id == job).order_by(Shard.ordinal)).all()
    for shard in shards:
        supervisor.run(shard)
    results = lab.get(f"/v1/jobs/{job}/results").json()["data"]
    llc = {row["step"]: row["details"] for row in results if row["measure"] == "llc"}
    assert [len(llc[step]["members"]) for step in STEPS] == [2] * len(STEPS)
    with Session(lab.engine) as session, session.begin():
        session.execute(
            text(
                "UPDATE results SET details = jsonb_set(details, '{members,1,verdict}', '\"diverged\"')"
                " WHERE job_id = :job AND measure = 'llc' AND checkpoint_id ="
                " (SELECT id FROM checkpoints WHERE series_id = :series AND step = 10)"
            ),
            {"job": job, "series": series},
        )
    with Session(lab.engine) as session:
        lease = claim(session, last, "worker", 30)
        assert lease is not None
        asked = request(session, lease, BlobStore(lab.blob_dir))
        session.rollback()
    first, second = asked["members"]
    assert first["llc"] == [llc[step]["members"][0]["llc"] for step in STEPS]
    assert second["llc"] == [None if step == 10 else llc[step]["members"][1]["llc"] for step in STEPS]
    assert first["loss"] == asked["curve"]["loss"]
    assert first["llc"] != asked["curve"]["llc"]
    supervisor.run(last)
    assert lab.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    for stage in lab.get(f"/v1/series/{series}/stages").json()["data"]:
        assert (stage["survival"] is None) == (stage["kind"] == "plateau")


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
