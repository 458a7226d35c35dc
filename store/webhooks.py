"""Webhooks: who is told of what, and what came of it. What is sent is as https://www.standardwebhooks.com specifies.

An outbox: a delivery is a row, made in the transaction of what it tells of, so neither is there without the other. A
sender *takes* due deliveries, of each webhook one at a time, under a lease with a fence (as shards are in
`store.leases`), sends them outside of any transaction, and *records* what came of it. One that dies between is followed
by another, which sends the same again: at least once, under the same id.

Every function runs inside the caller's transaction. All clocks are the database's. A webhook's row is locked before its
deliveries'.
"""

import base64
import json
import random
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import delete, func, insert, or_, select, text, update
from sqlalchemy.orm import Session

from store.errors import ConflictError, NotFoundError
from store.ids import new_id
from store.owned import find
from store.tables import Delivery, Tenant, Webhook

Kind = Literal[
    "job.queued",
    "job.calibrated",
    "job.cancel_requested",
    "job.retried",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "transition.certain",
    "transition.withdrawn",
    "webhook.disabled",
]
EVENTS: tuple[Kind, ...] = get_args(Kind)
EVERYTHING = "*"
TEST = "webhook.test"
"""Sent to whom asks for it, whatever else it wants to hear of."""

DELAYS = (5, 5 * 60, 30 * 60, *(hours * 3600 for hours in (2, 5, 10, 14, 20, 24)))
"""Seconds between attempts, as the specification suggests: ten attempts within a bit more than three days."""
JITTER = 0.1
"""A delay is longer by up to this share of it."""
MAX_RETRY_AFTER = 24 * 3600.0
MAX_WEBHOOKS = 20
"""Of a tenant."""
MAX_AT_ONCE = 4
"""Webhooks of one tenant that are sent to at the same time, by all senders together."""
LEASE_SECONDS = 60.0
"""Longer than any attempt takes."""
OVERLAP = timedelta(hours=24)
"""For so long a secret that was replaced still signs, beside its successor."""
KEPT_DAYS = 30
SECRET_BYTES = 32
MAX_ERROR = 1000

Reason = Literal["asked", "gone", "failing"]


def create_webhook(session: Session, tenant_id: str, url: str, events: Iterable[str], description: str) -> Webhook:
    """A new webhook with a secret. Raises: ConflictError `too_many_webhooks`."""
    session.execute(
        select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True)
    )  # one after another
    if session.scalar(select(func.count()).where(Webhook.tenant_id == tenant_id)) == MAX_WEBHOOKS:
        raise ConflictError("too_many_webhooks", f"there are {MAX_WEBHOOKS} webhooks", "delete one that is not needed")
    webhook = Webhook(
        id=new_id("whk"),
        tenant_id=tenant_id,
        url=url,
        events=list(dict.fromkeys(events)),
        description=description,
        secret=_new_secret(),
    )
    session.add(webhook)
    session.flush()
    return webhook


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def rotate_secret(session: Session, webhook: Webhook) -> None:
    """Another secret; the one before it, and none older, goes on signing beside it for a day. The row is locked."""
    webhook.previous_secret, webhook.secret = webhook.secret, _new_secret()
    webhook.previous_secret_until = _now(session) + OVERLAP
    session.flush()


def enable(session: Session, webhook: Webhook) -> None:
    """Send again what happens from now on. The row is locked."""
    webhook.disabled_at = webhook.disabled_reason = webhook.paused_until = None
    session.flush()


def disable(session: Session, webhook: Webhook, reason: Reason) -> None:
    """Send nothing more; what waits has failed. The tenant's other webhooks are told, unless it was asked for.

    The row is locked.
    """
    if webhook.disabled_at is not None:
        return
    now = _now(session)
    webhook.disabled_at, webhook.disabled_reason = now, reason
    session.flush()
    ended = {"state": "failed", "last_error": "the webhook was disabled", "next_attempt_at": None, "ended_at": now}
    pending = Delivery.webhook_id == webhook.id, Delivery.state == "pending"
    session.execute(update(Delivery).where(*pending).values(**ended))
    if reason != "asked":
        announce(session, webhook.tenant_id, "webhook.disabled", now, _told(webhook) | {"reason": reason})


def announce(session: Session, tenant_id: str, kind: str, at: datetime, data: dict[str, Any]) -> None:
    """Tell the webhooks of a tenant that want to hear of it, once this is committed. at: when it happened."""
    wanted = or_(Webhook.events.contains([kind]), Webhook.events.contains([EVERYTHING]))
    # Locked, so that none is deleted before its delivery is there: what is told of must not fail for that.
    listening = select(Webhook.id).where(Webhook.tenant_id == tenant_id, Webhook.disabled_at.is_(None), wanted)
    found = session.scalars(listening.order_by(Webhook.id).with_for_update(read=True, key_share=True)).all()
    if found:
        _queue(session, tenant_id, found, kind, at, data)


def send_test(session: Session, webhook: Webhook) -> Delivery:
    """Something to receive. Raises: ConflictError `webhook_disabled`. The row is locked."""
    _check_enabled(webhook)
    (delivery_id,) = _queue(session, webhook.tenant_id, [webhook.id], TEST, _now(session), _told(webhook))
    return session.get_one(Delivery, delivery_id)


def _told(webhook: Webhook) -> dict[str, Any]:
    return {"webhook": webhook.id, "links": {"webhook": f"/v1/webhooks/{webhook.id}"}}


def _queue(
    session: Session, tenant_id: str, webhook_ids: Iterable[str], kind: str, at: datetime, data: dict[str, Any]
) -> list[str]:
    timestamp = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    body = json.dumps({"type": kind, "timestamp": timestamp, "data": data}, separators=(",", ":"))
    common = {"tenant_id": tenant_id, "event": kind, "body": body}
    rows = [{"id": new_id("msg"), "webhook_id": webhook_id, **common} for webhook_id in webhook_ids]
    session.execute(insert(Delivery), rows)
    return [row["id"] for row in rows]


def find_delivery(session: Session, webhook: Webhook, delivery_id: str) -> Delivery:
    """Of this webhook. Raises: NotFoundError."""
    delivery = find(session, Delivery, webhook.tenant_id, delivery_id)
    if delivery.webhook_id != webhook.id:
        raise NotFoundError("delivery", delivery_id)
    return delivery


def retry(session: Session, webhook: Webhook, delivery: Delivery) -> None:
    """Send a delivery now, whatever became of it, and again as if it were new. The webhook's row is locked.

    Raises: ConflictError `webhook_disabled`.
    """
    _check_enabled(webhook)
    webhook.paused_until = None
    delivery.state, delivery.attempts, delivery.next_attempt_at, delivery.ended_at = "pending", 0, _now(session), None
    session.flush()


def _check_enabled(webhook: Webhook) -> None:
    if webhook.disabled_at is not None:
        hint = 'PATCH it with {"enabled": true} first'
        raise ConflictError("webhook_disabled", f"webhook '{webhook.id}' is disabled: {webhook.disabled_reason}", hint)


# What senders do ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parcel:
    """A delivery to be sent, and the fence that the word about it carries. at: when it was taken, by the database."""

    delivery_id: str
    webhook_id: str
    fence: int
    url: str
    body: str
    secrets: tuple[str, ...] = field(repr=False)
    attempt: int
    at: datetime


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt. status: of HTTP, if there was one; retry_after: seconds that the receiver asks for."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether it was received."""
        return self.status is not None and 200 <= self.status < 300


# Who was sent to longest ago comes first, so that nobody's backlog keeps others waiting for more than a turn.
_DUE = text(
    """
    WITH busy AS (
        SELECT tenant_id, count(*) AS number FROM webhooks WHERE lease_expires_at > now() GROUP BY tenant_id
    ), due AS (
        SELECT w.id, coalesce(b.number, 0)
                     + row_number() OVER (PARTITION BY w.tenant_id ORDER BY w.lease_expires_at NULLS FIRST) AS place
        FROM webhooks w LEFT JOIN busy b ON b.tenant_id = w.tenant_id
        WHERE w.disabled_at IS NULL
          AND (w.lease_expires_at IS NULL OR w.lease_expires_at <= now())
          AND (w.paused_until IS NULL OR w.paused_until <= now())
          AND EXISTS (SELECT 1 FROM webhook_deliveries d
                      WHERE d.webhook_id = w.id AND d.state = 'pending' AND d.next_attempt_at <= now())
    )
    SELECT w.id
    FROM webhooks w JOIN due ON due.id = w.id
    WHERE due.place <= :at_once AND w.disabled_at IS NULL
      AND (w.lease_expires_at IS NULL OR w.lease_expires_at <= now())
    ORDER BY w.lease_expires_at NULLS FIRST, w.id
    LIMIT :number
    FOR NO KEY UPDATE OF w SKIP LOCKED
    """
)
# A statement of its own, which sees what others committed before the row was locked.
_BEGIN = text(
    """
    UPDATE webhook_deliveries
    SET attempts = attempts + 1, last_attempt_at = now()
    WHERE id = (SELECT id FROM webhook_deliveries
                WHERE webhook_id = :webhook AND state = 'pending' AND next_attempt_at <= now()
                ORDER BY next_attempt_at, id LIMIT 1)
    RETURNING id, body, attempts
    """
)
_LEASE = text(
    """
    UPDATE webhooks
    SET lease_expires_at = now() + make_interval(secs => :lease), fence = fence + 1
    WHERE id = :webhook
    RETURNING fence, url, secret, CASE WHEN previous_secret_until > now() THEN previous_secret END AS previous,
              now() AS at
    """
)


def take(session: Session, number: int) -> list[Parcel]:
    """At most so many deliveries that are due, each of another webhook, to be sent once this is committed."""
    parcels: list[Parcel] = []
    for webhook_id in session.scalars(_DUE, {"number": number, "at_once": MAX_AT_ONCE}).all():
        delivery = session.execute(_BEGIN, {"webhook": webhook_id}).first()
        if delivery is None:
            continue
        webhook = session.execute(_LEASE, {"webhook": webhook_id, "lease": LEASE_SECONDS}).one()
        parcels.append(
            Parcel(
                delivery_id=delivery.id,
                webhook_id=webhook_id,
                fence=webhook.fence,
                url=webhook.url,
                body=delivery.body,
                secrets=tuple(secret for secret in (webhook.secret, webhook.previous) if secret),
                attempt=delivery.attempts,
                at=webhook.at,
            )
        )
    return parcels


def record(session: Session, parcel: Parcel, outcome: Outcome) -> None:
    """Write down what came of an attempt, and what is next. Nothing, if another took the webhook meanwhile."""
    held = select(Webhook).where(Webhook.id == parcel.webhook_id, Webhook.fence == parcel.fence)
    webhook = session.scalar(held.with_for_update(key_share=True))
    delivery = session.get(Delivery, parcel.delivery_id)
    if webhook is None or delivery is None:
        return
    now = _now(session)
    webhook.lease_expires_at = now
    delivery.last_status = outcome.status
    delivery.last_error = outcome.error.replace("\0", "\ufffd")[:MAX_ERROR] if outcome.error else None
    if outcome.is_success:
        webhook.last_delivered_at, webhook.paused_until = now, None
        delivery.state, delivery.next_attempt_at, delivery.ended_at = "delivered", None, now
    elif delivery.state == "pending":
        _failed(session, webhook, delivery, outcome, now)
    session.flush()


def _failed(session: Session, webhook: Webhook, delivery: Delivery, outcome: Outcome, now: datetime) -> None:
    gone = outcome.status == 410
    if gone or delivery.attempts > len(DELAYS):
        delivery.state, delivery.next_attempt_at, delivery.ended_at = "failed", None, now
        # For the days that the attempts at this one took, nothing else came through either.
        silent = webhook.last_delivered_at is None or webhook.last_delivered_at < delivery.created_at
        if gone or silent:
            disable(session, webhook, "gone" if gone else "failing")
        return
    # An attempt that was asked for while this one was under way has set the count back.
    delay = DELAYS[max(delivery.attempts, 1) - 1] * random.uniform(1.0, 1.0 + JITTER)
    if outcome.retry_after is not None:
        pause = min(max(outcome.retry_after, 0.0), MAX_RETRY_AFTER)
        webhook.paused_until, delay = now + timedelta(seconds=pause), max(delay, pause)
    delivery.next_attempt_at = now + timedelta(seconds=delay)


def forget_old(session: Session) -> None:
    """Deliveries that ended long ago, and secrets that no longer sign."""
    limit = func.now() - func.make_interval(0, 0, 0, KEPT_DAYS)
    session.execute(delete(Delivery).where(Delivery.ended_at < limit))
    unused = {"previous_secret": None, "previous_secret_until": None}
    session.execute(update(Webhook).where(Webhook.previous_secret_until < func.now()).values(**unused))


def _now(session: Session) -> datetime:
    return session.execute(select(func.now())).scalar_one()
