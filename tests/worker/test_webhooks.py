"""The sender of webhooks, against real receivers: what is sent, when again, and when no more."""

import email.utils
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, func, text, update
from sqlalchemy.orm import Session
from standardwebhooks import Webhook as Verifier

from store import tenants, webhooks
from store.clock import straighten
from store.ids import new_id
from store.settings import StoreSettings
from store.tables import Delivery, Webhook
from tests.receiver import HERE, Receiver, Reply, eventually, receiving
from tests.worker.hooks import Hooks
from tests.worker.programs import process
from worker.webhooks import Sender, sign

# Secret, id, time, body and signature of the specification's own tests.
KNOWN = (
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "msg_p5jXN8AQM9LWM0D4loKWxJek",
    1614265330,
    b'{"test": 2432232314}',
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
)


@pytest.fixture
def hooks(engine: Engine) -> Hooks:
    with Session(engine) as session, session.begin():
        session.execute(delete(Webhook))  # other tests'
        return Hooks(engine, tenants.ensure_tenant(session, new_id("ten")).id)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> StoreSettings:
    given = {"database_url": database_url, "broker_url": broker_url, "blob_dir": tmp_path}
    given |= {"webhook_networks": ["127.0.0.1/32"], "webhook_http": True, "sweep_seconds": 0.05}
    return StoreSettings.model_validate(given)


@contextmanager
def sending(engine: Engine, settings: StoreSettings, number: int = 1) -> Iterator[None]:
    """Senders at work."""
    senders = [Sender(engine, settings) for _ in range(number)]
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for sender in senders:
            sender.stop()
        for thread in threads:
            thread.join()


@pytest.fixture
def sender(engine: Engine, settings: StoreSettings, hooks: Hooks) -> Iterator[None]:
    del hooks  # which are the only ones by then
    with sending(engine, settings):
        yield


def test_a_signature_is_the_known_one() -> None:
    secret, message_id, timestamp, body, signature = KNOWN
    assert sign(message_id, timestamp, body, [secret]) == signature


@pytest.mark.usefixtures("sender")
def test_what_is_sent(hooks: Hooks, receiver: Receiver) -> None:
    webhook = hooks.add(receiver, "/a/hook?of=mine", ("job.failed",))
    hooks.announce("job.succeeded", job="not asked for")
    hooks.announce("job.failed", job="job_1")
    (request,) = receiver.until(1)
    assert request.path == "/a/hook?of=mine"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    told = Verifier(hooks.webhook(webhook).secret).verify(request.body, request.headers)
    assert (told["type"], told["data"]) == ("job.failed", {"job": "job_1"})
    assert abs(datetime.fromisoformat(told["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
    done = hooks.recorded(1)
    assert (done.id, done.state, done.last_status, done.last_error) == (request.id, "delivered", 204, None)
    assert (done.next_attempt_at, done.ended_at is not None) == (None, True)
    assert hooks.webhook(webhook).last_delivered_at == done.ended_at


@pytest.mark.usefixtures("sender")
def test_what_fails_is_sent_again_under_the_same_id(hooks: Hooks, receiver: Receiver) -> None:
    receiver.replies = [Reply(500, body=b"out of\0order"), Reply(302, {"Location": "/elsewhere"})]
    hooks.add(receiver)
    hooks.announce()
    failed = hooks.recorded(1)
    assert (failed.state, failed.last_status, failed.last_error) == ("pending", 500, "out of\ufffdorder")
    assert _wait(failed) == pytest.approx(5, rel=0.11)
    hooks.due_now()
    failed = hooks.recorded(2)
    assert (failed.state, failed.last_status) == ("pending", 302)
    assert _wait(failed) == pytest.approx(300, rel=0.11)
    time.sleep(0.2)
    assert len(receiver.received) == 2, "it is not due"
    hooks.due_now()
    assert hooks.recorded(3).state == "delivered"
    assert len(set(receiver.ids)) == 1
    assert {request.path for request in receiver.received} == {"/hook"}, "no redirect is followed"
    assert len({request.body for request in receiver.received}) == 1


def _wait(delivery: Delivery) -> float:
    assert delivery.next_attempt_at is not None
    assert delivery.last_attempt_at is not None
    return (delivery.next_attempt_at - delivery.last_attempt_at).total_seconds()


@pytest.mark.usefixtures("sender")
def test_who_answers_410_is_sent_nothing_more(hooks: Hooks, receiver: Receiver) -> None:
    with receiving() as other:
        watching = hooks.add(other, events=("webhook.disabled",))
        gone = hooks.add(receiver, events=("job.succeeded", "job.failed"))
        receiver.reply = Reply(410)
        hooks.announce("job.succeeded")
        told = json.loads(other.until(1)[0].body)
        assert told["data"] == {"webhook": gone, "links": {"webhook": f"/v1/webhooks/{gone}"}, "reason": "gone"}
    assert hooks.webhook(gone).disabled_reason == "gone"
    assert hooks.webhook(watching).disabled_at is None
    hooks.announce("job.failed")
    time.sleep(0.3)
    assert len(receiver.received) == 1
    assert [d.state for d in hooks.deliveries() if d.webhook_id == gone] == ["failed"]


@pytest.mark.usefixtures("sender")
@pytest.mark.parametrize(("received_meanwhile", "is_disabled"), [(False, True), (True, False)])
def test_who_receives_nothing_for_days_is_disabled(
    hooks: Hooks, receiver: Receiver, received_meanwhile: bool, is_disabled: bool
) -> None:
    receiver.reply = Reply(500)
    webhook = hooks.add(receiver)
    hooks.announce()
    first = hooks.recorded(1)
    if received_meanwhile:
        with hooks.session() as session:
            session.execute(update(Webhook).where(Webhook.id == webhook).values(last_delivered_at=func.now()))
    assert len(webhooks.DELAYS) == 9
    hooks.due_now(attempts=8)
    assert hooks.recorded(9).state == "pending"
    hooks.due_now()
    last = hooks.recorded(10)
    assert (last.id, last.state, last.next_attempt_at) == (first.id, "failed", None)
    assert (hooks.webhook(webhook).disabled_reason == "failing") is is_disabled


@pytest.mark.usefixtures("sender")
@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [
        (429, "120", 120.0),
        (503, "9" * 400, webhooks.MAX_RETRY_AFTER),
        (503, "in an hour", 3600.0),
        (429, "-1", 5.0),
        (429, "soon", 5.0),
        (503, "Mon, 01 Jan 99999999999 00:00:00 GMT", 5.0),
        (503, "Mon, 01 Jan 2024 00:00:00 +99999999999999999999", 5.0),
        (500, "120", 5.0),
    ],
)
def test_retry_after(hooks: Hooks, receiver: Receiver, status: int, asked: str, seconds: float) -> None:
    if asked == "in an hour":
        asked = email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    receiver.replies = [Reply(status, {"Retry-After": asked})]
    webhook = hooks.add(receiver)
    hooks.announce()
    assert _wait(hooks.recorded(1)) == pytest.approx(seconds, rel=0.11, abs=30 if seconds == 3600 else 0)
    hooks.announce()
    if seconds > 5.0:
        time.sleep(0.3)
        assert len(receiver.received) == 1, "it asked for none at all"
        assert hooks.webhook(webhook).paused_until is not None
    else:
        receiver.until(2)


@pytest.mark.usefixtures("sender")
def test_two_secrets_sign_for_a_day(hooks: Hooks, receiver: Receiver) -> None:
    webhook = hooks.add(receiver)
    old = hooks.webhook(webhook).secret
    with hooks.session() as session:
        webhooks.rotate_secret(session, session.get_one(Webhook, webhook))
    new = hooks.webhook(webhook).secret
    hooks.test(webhook)
    first = receiver.until(1)[0]
    assert old != new
    for secret in (old, new):
        assert Verifier(secret).verify(first.body, first.headers)["type"] == "webhook.test"
    until = hooks.webhook(webhook).previous_secret_until
    assert until is not None
    assert until - datetime.now(UTC) > timedelta(hours=23)
    with hooks.session() as session:
        passed = text("now() - interval '1 second'")
        session.execute(update(Webhook).where(Webhook.id == webhook).values(previous_secret_until=passed))
    hooks.test(webhook)
    second = receiver.until(2)[1]
    assert second.headers["webhook-signature"].count("v1,") == 1
    Verifier(new).verify(second.body, second.headers)
    with hooks.session() as session:
        webhooks.forget_old(session)
    assert hooks.webhook(webhook).previous_secret is None


def test_of_two_senders_each_delivery_is_sent_by_one(
    hooks: Hooks, receiver: Receiver, engine: Engine, settings: StoreSettings
) -> None:
    for number in range(5):
        hooks.add(receiver, f"/{number}")
    for number in range(8):
        hooks.announce(number=number)
    with sending(engine, settings, number=3):
        receiver.until(40)
        eventually(lambda: {delivery.state for delivery in hooks.deliveries()} == {"delivered"})
    assert len(receiver.received) == 40
    assert set(receiver.ids) == {delivery.id for delivery in hooks.deliveries()}
    for number in range(5):
        came = [json.loads(r.body)["data"]["number"] for r in receiver.received if r.path == f"/{number}"]
        assert came == list(range(8)), "one at a time, in their order"


@pytest.mark.usefixtures("sender")
def test_the_slow_keep_only_themselves_waiting(hooks: Hooks, receiver: Receiver, engine: Engine) -> None:
    """Four of a tenant's webhooks are sent to at once, however many there are."""
    over = threading.Event()
    with receiving() as slow, ExitStack() as ending:
        ending.callback(over.set)
        slow.reply = Reply(wait=over.wait)
        for number in range(20):
            hooks.add(slow, f"/{number}")
        hooks.announce()
        slow.until(webhooks.MAX_AT_ONCE)
        with Session(engine) as session, session.begin():
            other = Hooks(engine, tenants.ensure_tenant(session, new_id("ten")).id)
        other.add(receiver)
        for _ in range(3):
            other.announce()
        receiver.until(3, seconds=5)
        assert len(slow.received) == webhooks.MAX_AT_ONCE
        over.set()
        slow.until(20)


def test_a_clock_that_is_set_back_keeps_nobody_waiting(hooks: Hooks, receiver: Receiver) -> None:
    """All that is in the database is an hour later then, which is the same."""
    hooks.add(receiver)
    hooks.announce()
    hooks.announce()
    later = timedelta(hours=1)
    with hooks.session() as session:
        assert len(webhooks.take(session, 10)) == 1
        session.execute(update(Webhook).values(lease_expires_at=Webhook.lease_expires_at + later))
        session.execute(update(Delivery).values(next_attempt_at=Delivery.next_attempt_at + later))
    with hooks.session() as session:
        assert webhooks.take(session, 10) == []
        straighten(session, webhooks.LEASE_SECONDS)
    with hooks.session() as session:
        (taken,) = webhooks.take(session, 10)
    assert taken.attempt == 1, "the other waits for its second attempt"


@contextmanager
def sender_process(database_url: str, broker_url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m worker.webhooks`."""
    places = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "BLOB_DIR": str(folder)}
    environment = os.environ | HERE | {f"LAMBDAHAT_{name}": value for name, value in places.items()}
    with process("worker.webhooks", folder / "log", environment) as sender:
        yield sender


def test_a_sender_that_dies_before_it_records_is_followed_by_another(
    hooks: Hooks, receiver: Receiver, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    webhook, answer = hooks.add(receiver), threading.Event()
    receiver.replies = [Reply(wait=answer.wait)]
    hooks.announce()
    with sender_process(database_url, broker_url, tmp_path) as first:
        receiver.until(1)
        first.kill()
        first.wait()
    answer.set()
    (delivery,) = hooks.deliveries()
    assert (delivery.state, delivery.attempts) == ("pending", 1)
    with hooks.session() as session:
        assert webhooks.take(session, 10) == [], "its lease holds"
        session.execute(update(Webhook).where(Webhook.id == webhook).values(lease_expires_at=func.now()))
    with sender_process(database_url, broker_url, tmp_path) as second:
        receiver.until(2)
        assert hooks.recorded(2).state == "delivered"
        second.terminate()
        assert second.wait(timeout=20) == 0
    assert len(set(receiver.ids)) == 1


def test_who_lost_the_lease_records_nothing(hooks: Hooks, receiver: Receiver) -> None:
    webhook = hooks.add(receiver)
    hooks.announce()
    with hooks.session() as session:
        (late,) = webhooks.take(session, 10)
    with hooks.session() as session:
        session.execute(update(Webhook).where(Webhook.id == webhook).values(lease_expires_at=func.now()))
    with hooks.session() as session:
        (now,) = webhooks.take(session, 10)
        assert (now.delivery_id, now.fence, now.attempt) == (late.delivery_id, late.fence + 1, 2)
    with hooks.session() as session:
        webhooks.record(session, late, webhooks.Outcome(410))
    assert (hooks.deliveries()[0].state, hooks.webhook(webhook).disabled_at) == ("pending", None)
    with hooks.session() as session:
        webhooks.record(session, now, webhooks.Outcome(200))
    assert hooks.deliveries()[0].state == "delivered"
    assert late.secrets[0] not in repr(late), "no secret gets into a log"


def test_who_was_served_longest_ago_comes_next(hooks: Hooks, receiver: Receiver) -> None:
    """However long another has waited with more: its backlog keeps nobody else from a turn."""
    added = [hooks.add(receiver, f"/{number}") for number in range(3)]
    for _ in range(3):
        hooks.announce()
    served: list[str] = []
    for _ in range(9):
        with hooks.session() as session:
            (parcel,) = webhooks.take(session, 1)
        served.append(parcel.webhook_id)
        with hooks.session() as session:
            webhooks.record(session, parcel, webhooks.Outcome(200))
    assert served == added * 3


@pytest.mark.parametrize(("status", "state"), [(200, "delivered"), (500, "failed")])
def test_a_webhook_that_is_disabled_while_it_is_sent_to(
    hooks: Hooks, receiver: Receiver, status: int, state: str
) -> None:
    webhook = hooks.add(receiver)
    hooks.announce()
    with hooks.session() as session:
        (parcel,) = webhooks.take(session, 1)
    with hooks.session() as session:
        webhooks.disable(session, session.get_one(Webhook, webhook), "asked")
    with hooks.session() as session:
        webhooks.record(session, parcel, webhooks.Outcome(status))
    (delivery,) = hooks.deliveries()
    assert (delivery.state, delivery.next_attempt_at, delivery.last_status) == (state, None, status)
    assert hooks.webhook(webhook).disabled_reason == "asked"


def test_a_retry_that_is_asked_for_while_it_is_sent(hooks: Hooks, receiver: Receiver) -> None:
    webhook = hooks.add(receiver)
    hooks.announce()
    with hooks.session() as session:
        (parcel,) = webhooks.take(session, 1)
    with hooks.session() as session:
        kept = session.get_one(Webhook, webhook)
        webhooks.retry(session, kept, webhooks.find_delivery(session, kept, parcel.delivery_id))
    with hooks.session() as session:
        webhooks.record(session, parcel, webhooks.Outcome(500))
    (delivery,) = hooks.deliveries()
    assert (delivery.state, delivery.attempts) == ("pending", 0)
    assert _wait(delivery) == pytest.approx(5, rel=0.11)


def test_what_ended_is_forgotten_after_a_month(hooks: Hooks, receiver: Receiver) -> None:
    webhook = hooks.add(receiver)
    kept = [hooks.test(webhook) for _ in range(3)][1:]
    with hooks.session() as session:
        for delivery, days in zip(hooks.deliveries(), (31, 29), strict=False):
            ended = {"state": "delivered", "ended_at": text(f"now() - interval '{days} days'")}
            session.execute(update(Delivery).where(Delivery.id == delivery.id).values(**ended))
        webhooks.forget_old(session)
    assert [delivery.id for delivery in hooks.deliveries()] == kept


def test_what_did_not_happen_is_not_told(hooks: Hooks, receiver: Receiver) -> None:
    hooks.add(receiver)
    with Session(hooks.engine) as session:
        webhooks.announce(session, hooks.tenant_id, "job.failed", datetime.now(UTC), {})
        session.rollback()
    assert hooks.deliveries() == []
    hooks.announce()
    assert len(hooks.deliveries()) == 1


def test_a_webhook_that_is_being_deleted_does_not_stop_what_it_would_be_told_of(
    hooks: Hooks, receiver: Receiver
) -> None:
    webhook = hooks.add(receiver)
    with Session(hooks.engine) as deleting:
        deleting.delete(deleting.get_one(Webhook, webhook))
        deleting.flush()
        telling = threading.Thread(target=hooks.announce)
        telling.start()
        time.sleep(0.2)
        assert telling.is_alive(), "it waits for the end of the other"
        deleting.commit()
        telling.join()
    assert hooks.deliveries() == []
