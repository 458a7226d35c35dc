"""Figures for Prometheus: right, and for nobody else."""

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session

from store import leases
from store.tables import Shard
from tests.api.conftest import configured, serving
from tests.api.lab import Lab, refused

TOKEN = "a-token-of-an-operator"

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def figures(response: httpx.Response) -> Figures:
    """(name, labels) → number."""
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def change(before: Figures, after: Figures, name: str, **labels: str) -> float:
    key = name, tuple(sorted(labels.items()))
    return after.get(key, 0.0) - before.get(key, 0.0)


def reap(lab: Lab) -> list[str]:
    """Take back all shards whose leases have run out."""
    with Session(lab.engine) as session, session.begin():
        return leases.reap(session, 0)


def test_figures_follow_what_happens(lab: Lab, url: str) -> None:
    reap(lab)  # what other tests left
    before = figures(httpx.get(f"{url}/metrics"))
    series = lab.series()
    lab.checkpoint(series, 0)
    job = lab.job(series)
    with Session(lab.engine) as session, session.begin():
        shard = session.query(Shard).filter_by(job_id=job, kind="measure").one()
        lease = leases.claim(session, shard.id, "worker", 30)
        assert lease is not None
        leases.heartbeat(session, lease, 7, 0)
    assert reap(lab) == [lease.shard_id]
    after = figures(httpx.get(f"{url}/metrics"))
    assert change(before, after, "lambdahat_jobs", state="running") == 1
    assert change(before, after, "lambdahat_shards", queue="auto", state="queued") == 2
    assert change(before, after, "lambdahat_claims_total") == 1
    assert change(before, after, "lambdahat_lease_expiries_total") == 1
    assert change(before, after, "lambdahat_row_steps_total") == 7
    assert after["lambdahat_blobs", ()] > 0
    posted = {"method": "POST", "route": "/v1/jobs", "status": "202"}
    assert change(before, after, "lambdahat_request_seconds_count", **posted) == 1
    assert 0 < change(before, after, "lambdahat_request_seconds_sum", **posted) < 10


def test_made_up_addresses_make_no_new_figures(url: str) -> None:
    for name in ("a", "b", "c"):
        httpx.get(f"{url}/v1/{name}")
    routes = {dict(labels).get("route") for _, labels in figures(httpx.get(f"{url}/metrics"))}
    assert "none" in routes
    assert not routes & {"/v1/a", "/v1/b", "/v1/c"}


def test_a_token_is_asked_for_if_there_is_one(environment: dict[str, str]) -> None:
    with serving(environment | {"LAMBDAHAT_METRICS_TOKEN": TOKEN}) as url:
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}):
            refused(httpx.get(f"{url}/metrics", headers=wrong), 401, "unauthorized")
        assert figures(httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}))


def test_without_one_other_machines_are_refused(environment: dict[str, str]) -> None:
    app = configured(environment)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/metrics")

    refused(asyncio.run(ask()), 401, "unauthorized")
    app.state.shared.reads.dispose()
