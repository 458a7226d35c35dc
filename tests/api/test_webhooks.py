"""Webhooks over HTTP: made, changed, tested, watched; and addresses that nothing is sent to. No sender is at work."""

import base64
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from api.webhooks import JobTold, Told, WebhookTold
from store import keys, webhooks
from store.tables import Delivery, Webhook
from tests.api.conftest import serving
from tests.api.lab import Lab, created, refused
from tests.api.worked import stage, work
from tests.receiver import HERE

URL = "https://192.0.2.1/hook"


def add(lab: Lab, url: str = URL, **options: Any) -> dict[str, Any]:
    return created(lab.post("/v1/webhooks", json={"url": url, "events": ["*"]} | options))


def deliveries(lab: Lab, webhook: str) -> list[dict[str, Any]]:
    return lab.get(f"/v1/webhooks/{webhook}/deliveries").json()["data"]


def test_a_webhook_is_made_with_a_secret_that_is_shown_once(lab: Lab) -> None:
    made = add(lab, events=["job.failed", "job.succeeded", "job.failed"], description="pager")
    assert (made["url"], made["events"], made["description"]) == (URL, ["job.failed", "job.succeeded"], "pager")
    assert (made["disabled_at"], made["disabled_reason"], made["last_delivered_at"]) == (None, None, None)
    secret = made.pop("secret")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    second = add(lab)
    assert second["secret"] != secret
    address = f"/v1/webhooks/{made['id']}"
    assert lab.get(address).json() == made
    listed = lab.get("/v1/webhooks").json()["data"]
    assert [webhook["id"] for webhook in listed] == [second["id"], made["id"]]
    assert "whsec_" not in str(listed)
    changed = lab.patch(address, json={"events": ["*"], "url": "https://192.0.2.2/"}).json()
    assert changed == made | {"events": ["*"], "url": "https://192.0.2.2/"}
    assert lab.delete(address).status_code == 204
    refused(lab.get(address), 404, "not_found")


def test_a_secret_is_replaced(lab: Lab) -> None:
    made = add(lab)
    rotated = lab.post(f"/v1/webhooks/{made['id']}/rotate-secret").json()
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_secret_until"] is not None
    with Session(lab.engine) as session:
        kept = session.get_one(Webhook, made["id"])
        assert (kept.secret, kept.previous_secret) == (rotated["secret"], made["secret"])


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("http://1.1.1.1/", "bad_webhook_url"),
        ("https://me:secret@1.1.1.1/", "bad_webhook_url"),
        ("https://1.1.1.1:25/", "bad_webhook_url"),
        ("hook", "bad_webhook_url"),
        ("https://127.0.0.1/", "refused_address"),
        ("https://localhost/", "refused_address"),
        ("https://[::1]/", "refused_address"),
        ("https://[::ffff:10.0.0.1]/", "refused_address"),
        ("https://169.254.169.254/latest/meta-data", "refused_address"),
        ("https://0x7f.1/", "refused_address"),
        ("https://nobody.invalid/", "unknown_host"),
        ("https://1.1.1.1/" + "a" * 2000, "invalid_request"),
    ],
)
def test_addresses_that_are_refused(lab: Lab, address: str, code: str) -> None:
    webhook = add(lab)["id"]
    before = lab.everything()
    problem = refused(lab.post("/v1/webhooks", json={"url": address, "events": ["*"]}), 422, code)
    assert problem["hint"]
    refused(lab.patch(f"/v1/webhooks/{webhook}", json={"url": address}), 422, code)
    assert lab.everything() == before
    assert lab.get(f"/v1/webhooks/{webhook}").json()["url"] == URL


def test_an_operator_may_allow_more(environment: dict[str, str], lab: Lab) -> None:
    with serving(environment | HERE) as url:
        authorization = {"Authorization": f"Bearer {lab.api_key}"}
        for address, status in (("127.0.0.1", 201), ("127.0.0.2", 422)):
            body = {"url": f"http://{address}:8080/", "events": ["*"]}
            assert httpx.post(f"{url}/v1/webhooks", json=body, headers=authorization).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"url": URL},
        {"url": URL, "events": []},
        {"url": URL, "events": ["job.exploded"]},
        {"url": URL, "events": ["webhook.test"]},
        {"url": URL, "events": ["*"] * 21},
        {"url": URL, "events": "*"},
        {"url": URL, "events": ["*"], "secret": "whsec_mine"},
        {"url": URL, "events": ["*"], "description": "a\0b"},
    ],
)
def test_bodies_that_are_refused(lab: Lab, body: dict[str, Any]) -> None:
    refused(lab.post("/v1/webhooks", json=body), 422, "invalid_request")


def test_scopes(lab: Lab) -> None:
    webhook = add(lab)["id"]
    with Session(lab.engine) as session, session.begin():
        reader = {"Authorization": f"Bearer {keys.create_key(session, lab.tenant_id, 'reads', ['read'])}"}
    assert lab.get(f"/v1/webhooks/{webhook}", headers=reader).status_code == 200
    for method, rest in (("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/rotate-secret")):
        refused(lab.request(method, f"/v1/webhooks/{webhook}{rest}", json={}, headers=reader), 403, "forbidden")


def test_there_is_a_most(lab: Lab) -> None:
    for _ in range(webhooks.MAX_WEBHOOKS):
        add(lab)
    refused(lab.post("/v1/webhooks", json={"url": URL, "events": ["*"]}), 409, "too_many_webhooks")


def test_what_happens_to_a_job_is_told(lab: Lab) -> None:
    """In the transaction in which it happens, to those who asked for it."""
    everything, ends, other = (add(lab, events=events)["id"] for events in (["*"], ["job.cancelled"], ["job.failed"]))
    series = lab.series()
    lab.checkpoint(series, 0)
    job = lab.job(series)
    lab.post(f"/v1/jobs/{job}/cancel")
    assert [d["event"] for d in deliveries(lab, everything)] == ["job.cancelled", "job.cancel_requested", "job.queued"]
    assert [d["event"] for d in deliveries(lab, ends)] == ["job.cancelled"]
    assert deliveries(lab, other) == []
    with Session(lab.engine) as session:
        body = session.scalars(select(Delivery.body).where(Delivery.webhook_id == ends)).one()
    assert len(body) < 600
    told = json.loads(body)
    assert described(body) == told["data"]
    assert told["type"] == "job.cancelled"
    assert told["timestamp"] == lab.get(f"/v1/jobs/{job}/events").json()["data"][-1]["created_at"]
    links = told["data"].pop("links")
    assert told["data"] == {"job": job, "series": series, "state": "cancelled"}
    assert all(lab.get(link).status_code == 200 for link in links.values())
    assert set(links) == {"job", "results", "curve"}


def described(body: str) -> dict[str, Any]:
    """What is told of a job, as far as /openapi.json describes it."""
    found = Told.model_validate_json(body).data
    assert isinstance(found, JobTold)
    return found.model_dump(mode="json", exclude_unset=True)


def test_a_transition_is_told_of_as_it_is_described(lab: Lab) -> None:
    webhook = add(lab, events=["transition.certain", "transition.withdrawn"])["id"]
    series = lab.series()
    for step in (0, 10, 100):
        lab.checkpoint(series, step)
    job = lab.job(series, follow=True)
    work(
        lab, job, {0: 1.0, 10: 2.0, 100: 3.0}, [stage(0, "transition", "A", 3, 10), stage(1, "plateau", None, 10, 100)]
    )
    with Session(lab.engine) as session:
        (body,) = session.scalars(select(Delivery.body).where(Delivery.webhook_id == webhook)).all()
    told = json.loads(body)
    assert (told["type"], told["data"]["job"]) == ("transition.certain", job)
    assert (told["data"]["transition"]["from_step"], told["data"]["transition"]["type"]) == (3, "A")
    assert described(body) == told["data"]


def test_a_test_waits_to_be_sent(lab: Lab) -> None:
    webhook = add(lab, events=["job.failed"])["id"]
    response = lab.post(f"/v1/webhooks/{webhook}/test")
    assert response.status_code == 202
    sent = response.json()
    assert (sent["event"], sent["state"], sent["attempts"]) == ("webhook.test", "pending", 0)
    assert sent["id"].startswith("msg_")
    assert sent["next_attempt_at"] == sent["created_at"]
    assert deliveries(lab, webhook) == [sent]


def test_what_is_sent_is_described(lab: Lab, url: str) -> None:
    (described,) = httpx.get(f"{url}/openapi.json").json()["webhooks"].values()
    body = described["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("/Told")
    headers = {parameter["name"] for parameter in described["post"]["parameters"]}
    assert headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    webhook, other = add(lab)["id"], add(lab)["id"]
    lab.post(f"/v1/webhooks/{webhook}/test")
    with Session(lab.engine) as session, session.begin():
        webhooks.disable(session, session.get_one(Webhook, webhook), "gone")
        bodies = session.scalars(select(Delivery.body).where(Delivery.tenant_id == lab.tenant_id)).all()
    tested, disabled = (Told.model_validate_json(body) for body in bodies)
    assert isinstance(tested.data, WebhookTold)
    assert isinstance(disabled.data, WebhookTold)
    assert (tested.data.webhook, tested.data.reason) == (webhook, None)
    assert (disabled.data.webhook, disabled.data.reason) == (webhook, "gone")
    assert [delivery["event"] for delivery in deliveries(lab, other)] == ["webhook.disabled"]


def test_deliveries_come_in_pages(lab: Lab) -> None:
    webhook, other = add(lab)["id"], add(lab)["id"]
    sent = [lab.post(f"/v1/webhooks/{webhook}/test").json()["id"] for _ in range(5)]
    lab.post(f"/v1/webhooks/{other}/test")
    found: list[str] = []
    after = None
    for number in (2, 2, 1):
        shown = lab.get(f"/v1/webhooks/{webhook}/deliveries", params={"limit": 2} | ({"after": after} if after else {}))
        assert len(shown.json()["data"]) == number
        found += [delivery["id"] for delivery in shown.json()["data"]]
        after = shown.json()["next"]
    assert (found, after) == (sent[::-1], None)
    refused(lab.get(f"/v1/webhooks/{webhook}/deliveries", params={"after": "x"}), 422, "bad_cursor")


def test_a_delivery_is_sent_again(lab: Lab) -> None:
    webhook = add(lab)["id"]
    sent = lab.post(f"/v1/webhooks/{webhook}/test").json()["id"]
    failed = {"state": "failed", "attempts": 10, "next_attempt_at": None, "ended_at": func.now(), "last_status": 500}
    with Session(lab.engine) as session, session.begin():
        session.execute(update(Delivery).where(Delivery.id == sent).values(**failed))
        paused = text("now() + interval '1 hour'")
        session.execute(update(Webhook).where(Webhook.id == webhook).values(paused_until=paused))
    response = lab.post(f"/v1/webhooks/{webhook}/deliveries/{sent}/retry")
    assert response.status_code == 202
    again = response.json()
    assert (again["id"], again["state"], again["attempts"], again["ended_at"]) == (sent, "pending", 0, None)
    assert (again["last_status"], again["next_attempt_at"] is not None) == (500, True)
    assert lab.get(f"/v1/webhooks/{webhook}").json()["paused_until"] is None
    another = add(lab)["id"]
    refused(lab.post(f"/v1/webhooks/{another}/deliveries/{sent}/retry"), 404, "not_found")
    refused(lab.post(f"/v1/webhooks/{webhook}/deliveries/msg_1/retry"), 404, "not_found")


def test_disabled_and_enabled(lab: Lab) -> None:
    webhook = add(lab)["id"]
    address = f"/v1/webhooks/{webhook}"
    waiting = lab.post(f"{address}/test").json()["id"]
    disabled = lab.patch(address, json={"enabled": False}).json()
    assert disabled["disabled_reason"] == "asked"
    assert lab.patch(address, json={"enabled": False}).json() == disabled
    (ended,) = deliveries(lab, webhook)
    assert (ended["id"], ended["state"], ended["last_error"]) == (waiting, "failed", "the webhook was disabled")
    series = lab.series()
    lab.checkpoint(series, 0)
    lab.job(series)
    for rest in ("test", f"deliveries/{waiting}/retry"):
        assert refused(lab.post(f"{address}/{rest}"), 409, "webhook_disabled")["hint"]
    assert len(deliveries(lab, webhook)) == 1
    assert lab.patch(address, json={"enabled": True}).json()["disabled_at"] is None
    lab.job(series)
    assert [d["event"] for d in deliveries(lab, webhook)] == ["job.queued", "webhook.test"]


def test_figures(lab: Lab, url: str) -> None:
    def pending() -> float:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        found = [line for line in lines if line.startswith('lambdahat_webhook_deliveries{state="pending"}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = pending()
    lab.post(f"/v1/webhooks/{add(lab)['id']}/test")
    assert pending() == before + 1
