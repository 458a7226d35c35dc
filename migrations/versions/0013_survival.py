"""Transitions have how often they survive."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | Sequence[str] | None = "0012"

COLUMNS = """g.tenant_id, g.series_id, s.name AS series_name, g.job_id, g.id, g.ordinal, g.kind, g.type, g.from_step,
       g.to_step, g.delta_loss, g.delta_loss_std_error, g.delta_llc, g.delta_llc_std_error, g.details,
       g.from_step_low, g.from_step_high, g.to_step_low, g.to_step_high,
       g.probability_a, g.probability_b, g.probability_neither"""

ABOUT = """Plateaus and transitions of the LLC curve of a job, in order (ordinal), from training step from_step to
to_step, each with its 90 % interval (..._low to ..._high; null where an older version read the curve).
type of a transition: A, the loss falls and the LLC rises; B, the LLC falls while the loss changes only slightly;
null: neither, or not sure. probability_a, probability_b and probability_neither add up to 1."""

SURVIVAL = """
survival: the share of the members of an ensemble that have the transition too; null where the job had no ensemble."""


def upgrade() -> None:
    """Apply."""
    op.add_column("stages", sa.Column("survival", sa.Float(53)))
    _make_view(f"{COLUMNS}, g.survival", ABOUT + SURVIVAL)


def downgrade() -> None:
    """Undo."""
    op.execute("DROP VIEW stage")
    op.drop_column("stages", "survival")
    _make_view(COLUMNS, ABOUT)


def _make_view(columns: str, about: str) -> None:
    op.execute("DROP VIEW IF EXISTS stage")
    op.execute(f"CREATE VIEW stage AS SELECT {columns} FROM stages g JOIN series s ON s.id = g.series_id")
    op.execute(f"COMMENT ON VIEW stage IS '{about}'")
