"""Jobs know how many checkpoints they have taken in: the sweeper asks twice a second who is behind."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | Sequence[str] | None = "0015"


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("num_checkpoints", sa.Integer(), server_default="0", nullable=False))
    op.execute(
        """
        UPDATE jobs SET num_checkpoints = found.count
        FROM (SELECT job_id, sum(jsonb_array_length(checkpoint_ids)) AS count
              FROM shards WHERE kind = 'measure' GROUP BY job_id) found
        WHERE found.job_id = jobs.id
        """
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "num_checkpoints")
