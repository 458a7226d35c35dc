"""A job's plan is one for all of its shards."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("plan", postgresql.JSONB(), nullable=True))
    op.drop_column("shards", "plan")


def downgrade() -> None:
    """Undo."""
    op.add_column("shards", sa.Column("plan", postgresql.JSONB(), nullable=True))
    op.drop_column("jobs", "plan")
