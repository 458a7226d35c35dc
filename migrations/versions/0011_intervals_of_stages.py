"""Stages have intervals and probabilities, and are found over all series."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"

ENDS = ("from_step_low", "from_step_high", "to_step_low", "to_step_high")
PROBABILITIES = ("probability_a", "probability_b", "probability_neither")

COLUMNS = """s.name AS series_name, g.job_id, g.id, g.ordinal, g.kind, g.type, g.from_step,
       g.to_step, g.delta_loss, g.delta_loss_std_error, g.delta_llc, g.delta_llc_std_error, g.details"""

VIEW = f"""
CREATE VIEW stage AS
SELECT g.tenant_id, g.series_id, {COLUMNS},
       {", ".join(f"g.{name}" for name in (*ENDS, *PROBABILITIES))}
FROM stages g
JOIN series s ON s.id = g.series_id;

COMMENT ON VIEW stage IS
'Plateaus and transitions of the LLC curve of a job, in order (ordinal), from training step from_step to to_step, each
with its 90 % interval (..._low to ..._high; null where an older version read the curve).
type of a transition: A, the loss falls and the LLC rises; B, the LLC falls while the loss changes only slightly;
null: neither, or not sure. probability_a, probability_b and probability_neither add up to 1.';
"""

OLD_VIEW = f"""
CREATE VIEW stage AS
SELECT j.tenant_id, j.series_id, {COLUMNS}
FROM stages g
JOIN jobs j ON j.id = g.job_id
JOIN series s ON s.id = j.series_id;

COMMENT ON VIEW stage IS
'Plateaus and transitions of the LLC curve of a job, in order (ordinal), from training step from_step to to_step.
type of a transition: A, the loss falls and the LLC rises; B, the LLC falls while the loss changes only slightly;
null: neither.';
"""


def upgrade() -> None:
    """Apply."""
    op.execute("DROP VIEW stage")
    for name in ("tenant_id", "series_id"):
        op.add_column("stages", sa.Column(name, sa.Text()))
    op.execute("UPDATE stages g SET tenant_id = j.tenant_id, series_id = j.series_id FROM jobs j WHERE j.id = g.job_id")
    for name, table in (("tenant_id", "tenants"), ("series_id", "series")):
        op.alter_column("stages", name, nullable=False)
        op.create_foreign_key(f"fk_stages_{name}_{table}", "stages", table, [name], ["id"], ondelete="CASCADE")
    for name in ENDS:
        op.add_column("stages", sa.Column(name, sa.BigInteger()))
    for name in PROBABILITIES:
        op.add_column("stages", sa.Column(name, sa.Float(53)))
    op.create_index("ix_stages_series_id_job_id", "stages", ["series_id", "job_id"])
    transitions = sa.text("kind = 'transition'")
    op.create_index("ix_stages_transitions", "stages", ["tenant_id", "id"], postgresql_where=transitions)
    op.execute(VIEW)


def downgrade() -> None:
    """Undo."""
    op.execute("DROP VIEW stage")
    op.drop_index("ix_stages_transitions", "stages")
    op.drop_index("ix_stages_series_id_job_id", "stages")
    for name in ("tenant_id", "series_id", *ENDS, *PROBABILITIES):
        op.drop_column("stages", name)
    op.execute(OLD_VIEW)
