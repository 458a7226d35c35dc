"""Requests that are sent twice and done once (draft-ietf-httpapi-idempotency-key-header).

The answer is kept in the transaction of what was done: so both are there, or neither is, whatever is killed between.
"""

from dataclasses import dataclass

from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from llc.errors import InputError
from store.errors import ConflictError
from store.tables import IdempotencyKey

KEPT_HOURS = 24


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: str


def begin(session: Session, tenant_id: str, key: str, fingerprint: str) -> Answer | None:
    """What was answered to the request of this key; None: it is new, and to be done in this transaction.

    fingerprint: of the request. Raises: ConflictError `request_in_flight`; InputError `idempotency_key_reused`.
    """
    lock = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:key, 0))")
    if not session.scalar(lock, {"key": f"{tenant_id} {key}"}):
        raise _in_flight()
    found = session.get(IdempotencyKey, (tenant_id, key))
    if found is None:
        return None
    if found.fingerprint != fingerprint:
        raise InputError(
            "idempotency_key_reused",
            "this Idempotency-Key was sent with another request",
            "a new request needs a new key, such as a random UUID",
        )
    return Answer(found.status, found.headers, found.body)


def end(session: Session, tenant_id: str, key: str, fingerprint: str, answer: Answer) -> None:
    """Keep an answer, if this transaction is committed.

    Raises: ConflictError `request_in_flight`, if meanwhile another was kept: what commits before it reads a large file
    gives up its lock. Then all of this is undone, and who asks again is given that answer.
    """
    said = {"status": answer.status, "headers": answer.headers, "body": answer.body}
    added = insert(IdempotencyKey).values(tenant_id=tenant_id, key=key, fingerprint=fingerprint, **said)
    if session.scalar(added.on_conflict_do_nothing().returning(IdempotencyKey.key)) is None:
        raise _in_flight()


def _in_flight() -> ConflictError:
    detail = "the request of this Idempotency-Key is being answered"
    return ConflictError("request_in_flight", detail, "try again in a second")


def forget_old(session: Session) -> None:
    """After a day a key is new again."""
    limit = func.now() - func.make_interval(0, 0, 0, 0, KEPT_HOURS)
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < limit))
