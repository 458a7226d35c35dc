"""The webhooks of a tenant, as tests of their sender move and see them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from store import webhooks
from store.tables import Delivery, Webhook
from tests.receiver import Receiver, eventually


@dataclass
class Hooks:
    """The webhooks of a tenant, each call a transaction."""

    engine: Engine
    tenant_id: str

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def add(self, receiver: Receiver, path: str = "/hook", events: tuple[str, ...] = ("*",)) -> str:
        with self.session() as session:
            return webhooks.create_webhook(session, self.tenant_id, receiver.url + path, events, "").id

    def announce(self, kind: str = "job.succeeded", **data: Any) -> None:
        with self.session() as session:
            webhooks.announce(session, self.tenant_id, kind, datetime.now(UTC), data)

    def test(self, webhook: str) -> str:
        with self.session() as session:
            return webhooks.send_test(session, session.get_one(Webhook, webhook)).id

    def webhook(self, webhook: str) -> Webhook:
        with self.session() as session:
            return session.get_one(Webhook, webhook)

    def deliveries(self) -> list[Delivery]:
        with self.session() as session:
            mine = select(Delivery).where(Delivery.tenant_id == self.tenant_id).order_by(Delivery.id)
            return list(session.scalars(mine))

    def due_now(self, **also: Any) -> None:
        """As if the time until the next attempt had passed."""
        with self.session() as session:
            pending = Delivery.tenant_id == self.tenant_id, Delivery.state == "pending"
            session.execute(update(Delivery).where(*pending).values(next_attempt_at=func.now(), **also))
            session.execute(update(Webhook).where(Webhook.tenant_id == self.tenant_id).values(paused_until=None))

    def recorded(self, attempts: int) -> Delivery:
        """The only delivery, when so many attempts have been made at it and the last has been recorded."""

        def done() -> bool:
            (delivery,) = self.deliveries()
            webhook = self.webhook(delivery.webhook_id)
            return (
                delivery.attempts == attempts and bool(delivery.last_status or delivery.last_error) and _idle(webhook)
            )

        eventually(done)
        return self.deliveries()[0]


def _idle(webhook: Webhook) -> bool:
    return webhook.lease_expires_at is not None and webhook.lease_expires_at <= datetime.now(UTC)
