"""Uploads in parts, quotas, and blobs that are collected when nothing refers to them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"

QUOTAS = ("max_bytes", "max_checkpoints", "max_queued_shards")
INDICES = (
    ("blob_owners", ["sha256"]),
    ("datasets", ["blob"]),
    ("checkpoints", ["tenant_id"]),
    ("checkpoints", ["blob"]),
)


def upgrade() -> None:
    """Apply."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_at", time, nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", time, nullable=False),
        sa.UniqueConstraint("tenant_id", "sha256", name="uq_uploads_tenant_id_sha256"),
    )
    op.add_column("blob_owners", sa.Column("touched_at", time, nullable=False, server_default=sa.func.now()))
    for name in QUOTAS:
        op.add_column("tenants", sa.Column(name, sa.BigInteger))
    for table, columns in INDICES:
        op.create_index(f"ix_{table}_{columns[0]}", table, columns)
    op.create_index("ix_results_draws", "results", ["draws"], postgresql_where=sa.text("draws IS NOT NULL"))


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_results_draws", "results")
    for table, columns in INDICES:
        op.drop_index(f"ix_{table}_{columns[0]}", table)
    for name in QUOTAS:
        op.drop_column("tenants", name)
    op.drop_column("blob_owners", "touched_at")
    op.drop_table("uploads")
