"""Jobs that follow a series; which of them have results that their stages were not read with."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0011"

MEASURED = """
UPDATE jobs j SET unread = true
WHERE state IN ('queued', 'running')
  AND EXISTS (SELECT 1 FROM shards s WHERE s.job_id = j.id AND s.kind = 'measure' AND s.state = 'succeeded')
  AND EXISTS (SELECT 1 FROM shards s WHERE s.job_id = j.id AND s.kind = 'stages' AND s.state = 'queued')
"""


def upgrade() -> None:
    """Apply."""
    for name in ("following", "unread"):
        op.add_column("jobs", sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index("ix_jobs_following", "jobs", ["id"], postgresql_where=sa.text("following"))
    op.execute(MEASURED)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_jobs_following", "jobs")
    for name in ("unread", "following"):
        op.drop_column("jobs", name)
