"""A checkpoint that was posted as a torch file is kept as the safetensors file made of it, and says which it was."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"


def upgrade() -> None:
    """Apply."""
    op.add_column("checkpoints", sa.Column("source", sa.Text))
    op.create_foreign_key("fk_checkpoints_source_blobs", "checkpoints", "blobs", ["source"], ["sha256"])
    made = sa.text("source IS NOT NULL")
    op.create_index("ix_checkpoints_source", "checkpoints", ["source"], postgresql_where=made)


def downgrade() -> None:
    """Undo."""
    op.drop_column("checkpoints", "source")
