"""Every question about transitions has an index to its rarest answers, and deletions find what goes with them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | Sequence[str] | None = "0014"

TRANSITIONS = sa.text("kind = 'transition'")
OF_TRANSITIONS = {
    "ix_stages_transitions": ["job_id", "ordinal"],
    "ix_stages_type": ["type"],
    "ix_stages_probability": [sa.text("GREATEST(probability_a, probability_b)")],
    "ix_stages_to_step": ["to_step"],
    "ix_stages_survival": ["survival"],
}


def upgrade() -> None:
    """Apply."""
    op.drop_index("ix_stages_transitions", "stages")
    for name, what in OF_TRANSITIONS.items():
        op.create_index(name, "stages", ["tenant_id", *what], postgresql_where=TRANSITIONS)
    op.create_index(
        "ix_series_tags", "series", ["tags"], postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}
    )
    op.create_index("ix_models_family", "models", ["tenant_id", sa.text("(spec ->> 'family')")])
    op.create_index("ix_results_checkpoint_id", "results", ["checkpoint_id"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_results_checkpoint_id", "results")
    op.drop_index("ix_models_family", "models")
    op.drop_index("ix_series_tags", "series")
    for name in OF_TRANSITIONS:
        op.drop_index(name, "stages")
    op.create_index("ix_stages_transitions", "stages", ["tenant_id", "id"], postgresql_where=TRANSITIONS)
