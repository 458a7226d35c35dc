"""Requests that are sent twice and done once (draft-ietf-httpapi-idempotency-key-header).

The answer is kept in the transaction of what was done: so both are there, or neither is, whatever is killed between.
"""

from dataclasses import dataclass

from sqlalchemy import delete, func, text
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
        raise ConflictError(
            "request_in_flight", "the request of this Idempotency-Key is being answered", "try again in a second"
        )
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
    """Keep an answer, if this transaction is committed."""
    session.add(
        IdempotencyKey(
            tenant_id=tenant_id,
            key=key,
            fingerprint=fingerprint,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
        )
    )


def forget_old(session: Session) -> None:
    """After a day a key is new again."""
    limit = func.now() - func.make_interval(0, 0, 0, 0, KEPT_HOURS)
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < limit))
