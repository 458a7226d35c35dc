"""A job's plan is decided once: all its shards have it, in every attempt, and so has the same job again."""

from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from llc.ensemble import Plan
from llc.planning import Planning
from store import leases
from store.leases import Lease, LeaseLostError
from store.tables import Job, Shard
from tests.api.lab import Lab
from worker.supervisor import Supervisor

LLC = {"num_draws": 40, "num_burnin_steps": 10, "num_chains": 3, "batch_size": 4, "gamma": 10.0}


def new_job(lab: Lab, series: str, seed: int) -> tuple[str, list[str]]:
    """A job that no earlier one is like, and its shards."""
    job = lab.job(series, measures={"llc": {**LLC, "seed": seed}}, checkpoints_per_shard=1)
    with Session(lab.engine) as session:
        shards = session.scalars(select(Shard.id).where(Shard.job_id == job).order_by(Shard.ordinal)).all()
    return job, list(shards)


def plan(lab: Lab, job: str) -> dict[str, Any]:
    return lab.get(f"/v1/jobs/{job}").json()["plan"]


def per_chain(lab: Lab, job: str) -> list[list[float]]:
    """λ̂ of every chain, checkpoint by checkpoint."""
    rows = lab.get(f"/v1/jobs/{job}/results").json()["data"]
    return [row["details"]["per_chain"] for row in rows if row["measure"] == "llc"]


def test_all_shards_and_attempts_have_the_first_ones_plan(lab: Lab, supervisor: Supervisor, series: str) -> None:
    job, shards = new_job(lab, series, seed=1)
    assert plan(lab, job) is None
    supervisor.run(shards[0])
    first = plan(lab, job)
    assert first["row_steps_per_second"].keys() > {"row by row"}
    assert 0 < first["rows_per_call"] * first["row_bytes"] <= first["budget_bytes"]
    for shard in shards[1:]:
        supervisor.run(shard)
    found = per_chain(lab, job)
    assert plan(lab, job) == first  # whose timings are never the same twice

    with Session(lab.engine) as session, session.begin():
        session.execute(text("DELETE FROM results WHERE job_id = :job"), {"job": job})
        again = "UPDATE shards SET state = 'queued', run_at = now() WHERE job_id = :job AND kind = 'measure'"
        session.execute(text(again), {"job": job})
    for shard in shards[:-1]:
        supervisor.run(shard)
    assert per_chain(lab, job) == found
    assert plan(lab, job) == first

    same_again, shards = new_job(lab, series, seed=1)
    assert plan(lab, same_again) == first
    for shard in shards:
        supervisor.run(shard)
    assert per_chain(lab, same_again) == found


def test_the_child_keeps_to_the_jobs_plan(lab: Lab, supervisor: Supervisor, series: str) -> None:
    job, shards = new_job(lab, series, seed=2)
    with Session(lab.engine) as session, session.begin():
        session.get_one(Job, job).plan = Planning(Plan(samples_per_call=-1), 1, 1, {}).report()
    supervisor.run(shards[0])
    with Session(lab.engine) as session:
        error = session.get_one(Shard, shards[0]).error
    assert error is not None
    assert "split" in error["detail"]  # which no data can be into parts of −1 samples


def test_of_two_plans_the_first_is_agreed_on_and_a_lost_lease_agrees_on_none(lab: Lab, series: str) -> None:
    job, shards = new_job(lab, series, seed=3)

    def claimed(shard: str) -> Lease:
        with Session(lab.engine) as session, session.begin():
            lease = leases.claim(session, shard, "me", 30)
        assert lease is not None
        return lease

    def agreed(lease: Lease, rows_per_call: int) -> dict[str, Any]:
        with Session(lab.engine) as session, session.begin():
            return leases.agree(session, lease, Planning(Plan(rows_per_call=rows_per_call), 1, 1, {}).report())

    first, second = (claimed(shard) for shard in shards[:2])
    assert agreed(first, 8) == agreed(second, 9) == agreed(first, 10) == plan(lab, job)
    assert plan(lab, job)["rows_per_call"] == 8
    with Session(lab.engine) as session, session.begin():
        leases.release(session, second)
    with pytest.raises(LeaseLostError):
        agreed(second, 8)
