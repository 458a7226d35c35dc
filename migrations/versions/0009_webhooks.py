"""Webhooks, and what is sent to them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"


def _time(name: str, **options: Any) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text, primary_key=True),
        _tenant(),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("events", JSONB, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("previous_secret", sa.Text),
        _time("previous_secret_until"),
        _time("disabled_at"),
        sa.Column("disabled_reason", sa.Text),
        _time("last_delivered_at"),
        _time("paused_until"),
        _time("lease_expires_at"),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        _time("created_at", nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("disabled_reason IN ('asked', 'gone', 'failing')", name="disabled_reason"),
    )
    op.create_index("ix_webhooks_tenant_id_id", "webhooks", ["tenant_id", "id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        _tenant(),
        sa.Column("webhook_id", sa.Text, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="pending"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        _time("next_attempt_at", server_default=sa.func.now()),
        _time("last_attempt_at"),
        sa.Column("last_status", sa.Integer),
        sa.Column("last_error", sa.Text),
        _time("created_at", nullable=False, server_default=sa.func.now()),
        _time("ended_at"),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
    )
    op.create_index("ix_webhook_deliveries_webhook_id_id", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index("ix_webhook_deliveries_ended_at", "webhook_deliveries", ["ended_at"])
    where = sa.text("state = 'pending'")
    columns = ["webhook_id", "next_attempt_at"]
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", columns, postgresql_where=where)


def downgrade() -> None:
    """Undo."""
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
