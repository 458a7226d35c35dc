"""Rare transitions are found by what makes them rare: how sure their type is, and how large they are."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | Sequence[str] | None = "0013"

TRANSITIONS = sa.text("kind = 'transition'")
INDEXES = {
    "ix_stages_probability_a": "probability_a",
    "ix_stages_probability_b": "probability_b",
    "ix_stages_size": sa.text("abs(delta_llc)"),
}


def upgrade() -> None:
    """Apply."""
    for name, what in INDEXES.items():
        op.create_index(name, "stages", ["tenant_id", what], postgresql_where=TRANSITIONS)


def downgrade() -> None:
    """Undo."""
    for name in INDEXES:
        op.drop_index(name, "stages")
