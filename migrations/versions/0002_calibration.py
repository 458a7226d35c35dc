"""A pilot chooses a job's settings: its shard, and its report."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("calibration", postgresql.JSONB(), nullable=True))
    op.drop_constraint(op.f("ck_shards_kind"), "shards", type_="check")
    op.create_check_constraint(op.f("ck_shards_kind"), "shards", "kind IN ('calibrate', 'measure', 'stages')")


def downgrade() -> None:
    """Undo."""
    op.execute("DELETE FROM shards WHERE kind = 'calibrate'")
    op.drop_constraint(op.f("ck_shards_kind"), "shards", type_="check")
    op.create_check_constraint(op.f("ck_shards_kind"), "shards", "kind IN ('measure', 'stages')")
    op.drop_column("jobs", "calibration")
