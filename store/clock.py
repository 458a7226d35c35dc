"""Every clock is the database's. Should that one be set, or be another's after a failover, jobs go on all the same.

Set back, it would leave shards and deliveries due, and leases valid, for as long as it went; set forward, it would end
every lease.
"""

import time

from sqlalchemy import text
from sqlalchemy.orm import Session

from store import webhooks
from store.jobs import NEVER
from store.leases import MAX_BACKOFF_SECONDS

TOLERANCE_SECONDS = 1.0


class Clock:
    """Notices steps of the database's clock."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._stepped_at = float("-inf")

    def is_steady(self, session: Session, seconds: float) -> bool:
        """Whether it was not set within so many seconds, nor this process halted."""
        before = time.monotonic()
        now = session.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
        after = time.monotonic()
        offset = float(now) - before
        if self._offset is not None and abs(offset - self._offset) > TOLERANCE_SECONDS + after - before:
            self._stepped_at = after
        self._offset = offset
        return after - self._stepped_at > seconds


def straighten(session: Session, lease_seconds: float) -> None:
    """Bring back what lies further ahead than anything of ours is ever put: the clock was set back since."""
    session.execute(
        text(
            "UPDATE shards SET run_at = now() WHERE state = 'queued' AND run_at < :never"
            " AND run_at > now() + greatest(make_interval(secs => :most),"
            # The pause after a reading of the stages is as long as that took.
            " CASE WHEN kind = 'stages' THEN (run_at - started_at) / 2 END)"
        ),
        {"most": MAX_BACKOFF_SECONDS, "never": NEVER},
    )
    session.execute(
        text(
            "UPDATE shards SET lease_expires_at = now() + make_interval(secs => :lease)"
            " WHERE state = 'running' AND lease_expires_at > now() + make_interval(secs => 2 * :lease)"
        ),
        {"lease": lease_seconds},
    )
    session.execute(
        text(
            "UPDATE webhook_deliveries SET next_attempt_at = now()"
            " WHERE state = 'pending' AND attempts = 0 AND next_attempt_at > now()"
        )
    )
    session.execute(
        text(
            "UPDATE webhooks SET lease_expires_at = now()"
            " WHERE lease_expires_at > now() + make_interval(secs => 2 * :lease)"
        ),
        {"lease": webhooks.LEASE_SECONDS},
    )
