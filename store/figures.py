"""What an operator wants to know of all tenants together, for `/metrics`. It counts whole tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

Counts = Sequence[tuple[tuple[str, ...], float]]
"""(labels, number) of each."""


@dataclass(frozen=True)
class Figures:
    """Of one moment."""

    jobs: Counts
    """By state."""
    shards: Counts
    """By queue and state."""
    queue_ages: Counts
    """By queue: seconds that the oldest due shard has waited."""
    claims: float
    """Of shards, ever: attempts, and those given back."""
    lease_expiries: float
    row_steps: float
    """Done, ever, as far as the shards are still there."""
    webhook_deliveries: Counts
    """By state; those that ended, for 30 days."""
    blobs: float
    blob_bytes: float


def figures(session: Session) -> Figures:
    """All of it."""

    def counts(query: str) -> Counts:
        return [(tuple(row[:-1]), float(row[-1])) for row in session.execute(text(query))]

    def one_row(query: str) -> Sequence[float]:
        return [float(number) for number in session.execute(text(query)).one()]

    claims, row_steps = one_row("SELECT coalesce(sum(fence), 0), coalesce(sum(work_done), 0) FROM shards")
    blobs, blob_bytes = one_row("SELECT count(*), coalesce(sum(size), 0) FROM blobs")
    (lease_expiries,) = one_row("SELECT count(*) FROM events WHERE data -> 'error' ->> 'code' = 'lease_expired'")
    return Figures(
        jobs=counts("SELECT state, count(*) FROM jobs GROUP BY state"),
        shards=counts("SELECT queue, state, count(*) FROM shards GROUP BY queue, state"),
        queue_ages=counts(
            "SELECT queue, extract(epoch FROM now() - min(run_at)) FROM shards"
            " WHERE state = 'queued' AND run_at <= now() GROUP BY queue"
        ),
        claims=claims,
        lease_expiries=lease_expiries,
        row_steps=row_steps,
        webhook_deliveries=counts("SELECT state, count(*) FROM webhook_deliveries GROUP BY state"),
        blobs=blobs,
        blob_bytes=blob_bytes,
    )
