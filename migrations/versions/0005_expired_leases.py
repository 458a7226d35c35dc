"""Expired leases can be counted without reading all events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"


def upgrade() -> None:
    """Apply."""
    where = sa.text("data -> 'error' ->> 'code' = 'lease_expired'")
    op.create_index("ix_events_lease_expired", "events", ["id"], postgresql_where=where)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_events_lease_expired", "events")
