"""An attempt that got further than those before is no failure, and a lost worker seldom the shard's."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"


def upgrade() -> None:
    """Apply."""
    op.add_column("shards", sa.Column("failures", sa.Integer(), server_default="0", nullable=False))
    op.add_column("shards", sa.Column("losses", sa.Integer(), server_default="0", nullable=False))
    op.add_column("shards", sa.Column("furthest", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    """Undo."""
    for name in ("furthest", "losses", "failures"):
        op.drop_column("shards", name)
