"""A job whose settings a pilot chooses: one shard first, then all others with what it chose."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.tables import Shard
from tests.api.lab import Lab
from worker.supervisor import Supervisor

AUTO = {"settings": "auto", "budget": 400, "batch_size": 4, "num_pilot_checkpoints": 1}


def shards(lab: Lab, job: str) -> dict[str, list[str]]:
    """Ids by kind."""
    with Session(lab.engine) as session:
        rows = session.execute(select(Shard.kind, Shard.id).where(Shard.job_id == job).order_by(Shard.ordinal)).all()
    return {kind: [row.id for row in rows if row.kind == kind] for kind in ("calibrate", "measure", "stages")}


def new_job(lab: Lab, series: str, llc: Any) -> str:
    return lab.job(series, measures={"loss": {}, "llc": llc}, checkpoints_per_shard=1)


def test_the_pilot_runs_first_and_its_settings_are_the_jobs(lab: Lab, supervisor: Supervisor, series: str) -> None:
    job = new_job(lab, series, AUTO)
    waiting = shards(lab, job)
    supervisor.run(waiting["measure"][0])  # a hint that comes too early changes nothing
    assert lab.get(f"/v1/jobs/{job}").json()["state"] == "queued"
    for shard in [*waiting["calibrate"], *waiting["measure"], *waiting["stages"]]:
        supervisor.run(shard)
    found = lab.get(f"/v1/jobs/{job}").json()
    assert found["state"] == "succeeded"
    llc = found["settings"]["measures"]["llc"]
    assert "settings" not in llc
    assert llc["step_error"] > 0
    assert found["calibration"]["settings"] == llc
    assert found["calibration"]["trials"]
    results = lab.get(f"/v1/jobs/{job}/results").json()["data"]
    epsilons = [row["details"]["epsilon"] for row in results if row["measure"] == "llc"]
    assert epsilons == pytest.approx([llc["sampler"]["epsilon"]] * 2, rel=1e-6)
    assert [event["kind"] for event in lab.get(f"/v1/jobs/{job}/events").json()["data"]].count("job.calibrated") == 1


def test_the_word_auto_is_enough(lab: Lab, series: str) -> None:
    job = lab.get(f"/v1/jobs/{new_job(lab, series, 'auto')}").json()
    assert job["settings"]["measures"]["llc"]["settings"] == "auto"
    assert lab.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    assert lab.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def test_a_pilot_that_fails_ends_the_job(lab: Lab, supervisor: Supervisor, series: str) -> None:
    job = new_job(lab, series, AUTO)
    (pilot,) = shards(lab, job)["calibrate"]
    with Session(lab.engine) as session, session.begin():
        session.get_one(Shard, pilot).checkpoint_ids = []  # nothing to stack: the child dies of it
        session.get_one(Shard, pilot).max_attempts = 1
    supervisor.run(pilot)
    found = lab.get(f"/v1/jobs/{job}").json()
    assert found["state"] == "failed"
    assert found["progress"]["shards"]["cancelled"] == 2
