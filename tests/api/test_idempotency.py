"""A request that is sent again is done once, and answered as before."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

import lambdahat
from store import idempotency
from store.errors import ConflictError
from store.tables import IdempotencyKey
from tests.api.lab import SPEC, Lab, data, refused
from tests.chaos.proxy import Proxy

KEY = {"Idempotency-Key": "3f1c8a6e-0d54-4a3c-9c5f-b7e2a1d90c11"}


@pytest.fixture
def requests(lab: Lab) -> dict[str, dict[str, Any]]:
    """Whatever makes something new, by its address."""
    series = lab.series()
    lab.checkpoint(series, 0)
    blob = lab.upload(data(4))
    return {
        "/v1/models": {"name": "a", "spec": SPEC},
        "/v1/datasets": {"name": "a", "blob": blob},
        "/v1/series": {"name": "a", "model": lab.model(), "dataset": lab.dataset()},
        "/v1/jobs": {"series": series, "measures": {"loss": {}}},
    }


@pytest.mark.parametrize("address", ["/v1/models", "/v1/datasets", "/v1/series", "/v1/jobs"])
def test_again_is_once(lab: Lab, requests: dict[str, dict[str, Any]], address: str) -> None:
    plain = lab.post(address, json=requests[address])
    before = len(_all(lab, address))
    first, second = (lab.post(address, json=requests[address], headers=KEY) for _ in range(2))
    assert first.status_code == second.status_code == plain.status_code
    assert first.json() == second.json() != plain.json()
    assert set(first.json()) == set(plain.json())
    assert first.headers.get("Location") == second.headers.get("Location")
    assert ("Location" in first.headers) == ("Location" in plain.headers)
    assert (first.headers.get("Idempotency-Replayed"), second.headers["Idempotency-Replayed"]) == (None, "true")
    assert lab.get(f"{address}/{first.json()['id']}").json() == first.json()
    assert len(_all(lab, address)) == before + 1


def _all(lab: Lab, address: str) -> list[Any]:
    return lab.get(address, params={"limit": 100}).json()["data"]


def test_a_lock_that_is_given_up_for_a_large_file(lab: Lab) -> None:
    """Two at once may do it, and one is kept: the other is told to ask again, and nothing of it stays."""
    answers = [idempotency.Answer(201, {}, body) for body in ("first", "second")]
    with Session(lab.engine) as first, Session(lab.engine) as second:
        for session in (first, second):
            assert idempotency.begin(session, lab.tenant_id, "key", "fingerprint") is None
            session.commit()
        idempotency.end(second, lab.tenant_id, "key", "fingerprint", answers[1])
        second.commit()
        with pytest.raises(ConflictError, match="being answered"):
            idempotency.end(first, lab.tenant_id, "key", "fingerprint", answers[0])
        first.rollback()
        assert idempotency.begin(first, lab.tenant_id, "key", "fingerprint") == answers[1]


def test_another_request_with_the_same_key_is_refused(lab: Lab, requests: dict[str, dict[str, Any]]) -> None:
    lab.post("/v1/models", json=requests["/v1/models"], headers=KEY)
    before = lab.everything()
    other = lab.post("/v1/models", json={"name": "b", "spec": SPEC}, headers=KEY)
    assert refused(other, 422, "idempotency_key_reused")["hint"]
    refused(lab.post("/v1/series", json=requests["/v1/series"], headers=KEY), 422, "idempotency_key_reused")
    assert lab.everything() == before


def test_keys_are_a_tenants_own(lab: Lab, other_lab: Lab) -> None:
    body = {"name": "a", "spec": SPEC}
    first, second = (one.post("/v1/models", json=body, headers=KEY) for one in (lab, other_lab))
    assert first.json()["id"] != second.json()["id"]


def test_what_was_refused_may_be_mended(lab: Lab, requests: dict[str, dict[str, Any]]) -> None:
    lost = {**requests["/v1/jobs"], "series": "ser_" + "0" * 32}
    refused(lab.post("/v1/jobs", json=lost, headers=KEY), 404, "not_found")
    assert lab.post("/v1/jobs", json=requests["/v1/jobs"], headers=KEY).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "a b"])
def test_a_bad_key_is_refused(lab: Lab, key: str) -> None:
    body = {"name": "a", "spec": SPEC}
    refused(lab.post("/v1/models", json=body, headers={"Idempotency-Key": key}), 422, "invalid_request")


def test_one_of_many_at_once_is_done(lab: Lab) -> None:
    body = {"name": "a", "spec": SPEC}

    def post(_: int) -> tuple[int, str]:
        answer = lab.post("/v1/models", json=body, headers=KEY)
        return answer.status_code, answer.json().get("code", answer.json().get("id"))

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(post, range(24)))
    assert {code for status, code in found if status != 201} <= {"request_in_flight"}
    assert len({number for status, number in found if status == 201}) == 1
    assert len(_all(lab, "/v1/models")) == 1


def test_who_asks_while_it_is_done_is_told_so(lab: Lab) -> None:
    with Session(lab.engine) as session, session.begin():
        assert idempotency.begin(session, lab.tenant_id, KEY["Idempotency-Key"], "x") is None
        problem = refused(
            lab.post("/v1/models", json={"name": "a", "spec": SPEC}, headers=KEY), 409, "request_in_flight"
        )
        assert problem["hint"]


def test_after_a_day_it_is_forgotten(lab: Lab) -> None:
    first = lab.post("/v1/models", json={"name": "a", "spec": SPEC}, headers=KEY)
    for hours, forgotten in ((23, False), (25, True)):
        with Session(lab.engine) as session, session.begin():
            age = text(f"now() - interval '{hours} hours'")
            session.execute(update(IdempotencyKey).values(created_at=age))
            idempotency.forget_old(session)
        again = lab.post("/v1/models", json={"name": "a", "spec": SPEC}, headers=KEY)
        assert (again.json()["id"] != first.json()["id"]) == forgotten


def test_the_client_sends_a_job_once_though_its_answer_is_lost(lab: Lab, requests: dict[str, dict[str, Any]]) -> None:
    """The connection is reset after the request has arrived and before its answer has."""
    body, port = requests["/v1/jobs"], lab.base_url.port
    assert port
    with (
        Proxy(("127.0.0.1", port)) as proxy,
        lambdahat.Client(f"http://127.0.0.1:{proxy.port}", lab.api_key) as client,
        ThreadPoolExecutor(1) as pool,
        proxy.being("delay"),
    ):
        asked = pool.submit(client.run, body["series"], {"loss": {}})
        deadline = time.monotonic() + 10
        while not _all(lab, "/v1/jobs"):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        proxy.reset()
        job = asked.result(timeout=30)
    assert [found["id"] for found in _all(lab, "/v1/jobs")] == [job.id]
