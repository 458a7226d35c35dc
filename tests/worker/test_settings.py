"""A job that a newer version stored, in settings that this one doesn't know: it says so, and can be ended."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from store.tables import Shard
from tests.api.lab import Lab
from worker.supervisor import Supervisor


@pytest.fixture
def job(lab: Lab, series: str) -> str:
    job = lab.job(series, measures={"loss": {}, "llc": None})
    newer = """jsonb_set(settings, '{measures,of_tomorrow}', '{"nbeta": 3}')"""
    with lab.engine.begin() as connection:
        connection.execute(text(f"UPDATE jobs SET settings = {newer} WHERE id = :job"), {"job": job})
    return job


def test_its_shards_fail_by_name_and_it_ends(lab: Lab, supervisor: Supervisor, job: str) -> None:
    with Session(lab.engine) as session:
        shards = session.scalars(select(Shard.id).where(Shard.job_id == job)).all()
    for shard in shards:
        supervisor.run(shard)
    shown = lab.get(f"/v1/jobs/{job}").json()
    assert shown["state"] == "failed"
    assert shown["error"]["first"]["code"] == "settings_unknown"
    assert "measures.of_tomorrow" in shown["error"]["first"]["detail"]
    assert shown["settings"]["measures"]["of_tomorrow"] == {"nbeta": 3}


def test_it_is_shown_and_cancelled(lab: Lab, job: str) -> None:
    found = lab.get("/v1/jobs", params={"limit": 1000}).json()["data"]
    assert job in [one["id"] for one in found]
    assert lab.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"


def test_who_asks_for_what_they_say_is_told(lab: Lab, series: str, job: str) -> None:
    answer = lab.get(f"/v1/series/{series}/evidence", params={"job": job})
    assert answer.status_code == 422
    assert answer.json()["code"] == "settings_unknown"
    assert "newer version" in answer.json()["hint"]
