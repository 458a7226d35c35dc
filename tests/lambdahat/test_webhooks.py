"""Webhooks from the real API and the real sender to a real receiver, as a lab uses them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, delete
from standardwebhooks import Webhook as Signer

from lambdahat import ApiError, Client, WebhookError, verify_webhook
from store.tables import Webhook
from tests.lambdahat import lab
from tests.lambdahat.test_cli import Run, failed, ok, run
from tests.receiver import Receiver, Reply, eventually, receiving

__all__ = ["run"]  # a fixture

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def _sender(environment: dict[str, str], engine: Engine) -> Iterator[None]:
    with engine.begin() as connection:
        connection.execute(delete(Webhook))  # other tests'
    command = [sys.executable, "-m", "worker.webhooks"]
    with subprocess.Popen(command, env=os.environ | environment) as process:
        yield
        process.terminate()
    assert process.returncode == 0


@pytest.mark.usefixtures("_sender")
def test_a_job_that_ends_is_told_of(client: Client, engine: Engine, receiver: Receiver) -> None:
    hook = client.create_webhook(f"{receiver.url}/hook", ["job.succeeded", "job.failed"], "to the pager")
    assert hook.secret not in repr(hook)
    series = lab.new_series(client)
    job = client.run(series, {"loss": {}}, checkpoints_per_shard=2)
    lab.work(engine, job)
    assert client.job(job).state == "succeeded"
    (request,) = receiver.until(1)
    told = verify_webhook(request.body, request.headers, hook.secret)
    assert told["type"] == "job.succeeded"
    assert (told["data"]["job"], told["data"]["series"], told["data"]["state"]) == (job.id, series.id, "succeeded")
    eventually(lambda: next(client.list_deliveries(hook)).state == "delivered")
    (delivery,) = client.list_deliveries(hook)
    assert (delivery.id, delivery.event, delivery.last_status) == (request.id, "job.succeeded", 204)

    client.retry_delivery(hook, delivery)
    assert receiver.until(2)[1].id == request.id
    new = client.rotate_webhook_secret(hook)
    test = client.test_webhook(hook.id)
    last = receiver.until(3)[2]
    for secret in (hook.secret, new.secret):
        assert verify_webhook(last.body, last.headers, secret)["type"] == test.event == "webhook.test"


def test_webhooks_are_changed_and_deleted(client: Client, receiver: Receiver) -> None:
    hook = client.create_webhook(receiver.url)
    changed = client.update_webhook(hook, f"{receiver.url}/other", ["job.failed"], "mine", enabled=False)
    assert (changed.url, changed.events, changed.description) == (f"{receiver.url}/other", ["job.failed"], "mine")
    assert changed.disabled_reason == "asked"
    with pytest.raises(ApiError, match="webhook_disabled"):
        client.test_webhook(hook)
    assert client.update_webhook(hook, enabled=True).disabled_at is None
    assert [found.id for found in client.list_webhooks()] == [client.webhook(hook).id]
    client.delete_webhook(hook)
    assert list(client.list_webhooks()) == []
    with pytest.raises(ApiError, match="refused_address"):
        client.create_webhook("http://127.0.0.2/")


@pytest.mark.usefixtures("_sender")
def test_on_the_command_line(run: Run, receiver: Receiver) -> None:
    receiver.reply = Reply(500, body=b"[bold]no")
    webhook, secret = ok(run("webhooks", "add", receiver.url, "--event", "job.failed")).splitlines()
    assert secret.startswith("whsec_")
    assert "webhook.test" in ok(run("webhooks", "test", webhook))
    receiver.until(1)
    listed = ok(run("webhooks", "list"))
    assert all(word in listed for word in (webhook, receiver.url, "job.failed", "enabled", "never"))
    assert secret.split()[0] not in listed
    shown = ok(run("webhooks", "deliveries", webhook))
    assert all(word in shown for word in ("webhook.test", "pending", "500", "[bold]no"))
    receiver.reply = Reply()
    ok(run("webhooks", "retry", webhook, receiver.ids[0]))
    receiver.until(2)
    assert ok(run("webhooks", "rotate", webhook)).splitlines()[1] != secret
    assert "enabled" in ok(run("webhooks", "enable", webhook))
    assert "removed" in ok(run("webhooks", "remove", webhook))
    assert "there is no webhook" in failed(run("webhooks", "remove", webhook))
    assert "not on the public internet" in failed(run("webhooks", "add", "https://10.0.0.1"))


def signed(body: bytes = BODY, secret: str = SECRET, seconds_ago: float = 0) -> dict[str, str]:
    """Headers, by the specification's own implementation."""
    at = datetime.fromtimestamp(time.time() - seconds_ago, UTC)
    signature = Signer(secret).sign("msg_1", at, body.decode())
    return {"Webhook-Id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "WEBHOOK-SIGNATURE": signature}


def test_what_is_right_is_verified() -> None:
    assert verify_webhook(BODY, signed(), SECRET) == json.loads(BODY)
    assert verify_webhook(BODY, signed(), SECRET.removeprefix("whsec_")) == json.loads(BODY)
    assert verify_webhook(BODY, signed(seconds_ago=290), SECRET)
    headers = signed()
    headers["WEBHOOK-SIGNATURE"] = f"v1a,abc v1, v1,AAAA {headers['WEBHOOK-SIGNATURE']}"
    assert verify_webhook(BODY, headers, SECRET)


def test_the_specifications_known_answer() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify_webhook(BODY, headers, SECRET, tolerance=float("inf")) == {"test": 2432232314}
    with pytest.raises(WebhookError, match="long ago"):
        verify_webhook(BODY, headers, SECRET)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"body": BODY + b" "}, "signature"),
        ({"secret": "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "signature"),
        ({"Webhook-Id": "msg_2"}, "signature"),
        ({"webhook-timestamp": "99999999999"}, "signature"),
        ({"WEBHOOK-SIGNATURE": "v1,QAACAULQXGgZ2pfgqeln2R3oQh0CvQhx+sqtSYtRfzM="}, "signature"),
        ({"WEBHOOK-SIGNATURE": "v1,\ud800é"}, "signature"),
        ({"WEBHOOK-SIGNATURE": ""}, "signature"),
        ({"WEBHOOK-SIGNATURE": "v1"}, "signature"),
        ({"webhook-timestamp": "now"}, "header"),
        ({"secret": ""}, "secret"),
        ({"secret": "whsec_"}, "secret"),
        ({"secret": "not one"}, "secret"),
    ],
)
def test_what_is_not_right_is_refused(changed: dict[str, Any], why: str) -> None:
    good: dict[str, Any] = {"body": BODY, "secret": SECRET, **signed()}
    headers = good | changed
    body, secret = headers.pop("body"), headers.pop("secret")
    with pytest.raises(WebhookError, match=why):
        verify_webhook(body, headers, secret)


def test_other_versions_headers_and_times_are_refused() -> None:
    right = signed()["WEBHOOK-SIGNATURE"]
    with pytest.raises(WebhookError, match="signature"):
        verify_webhook(BODY, signed() | {"WEBHOOK-SIGNATURE": right.replace("v1,", "v2,")}, SECRET)
    for name in signed():
        with pytest.raises(WebhookError, match="header"):
            verify_webhook(BODY, {other: value for other, value in signed().items() if other != name}, SECRET)
    for seconds_ago in (310, -310):
        with pytest.raises(WebhookError, match="long ago"):
            verify_webhook(BODY, signed(seconds_ago=seconds_ago), SECRET)
