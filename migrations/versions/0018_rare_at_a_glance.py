"""PostgreSQL knows how rare a likely or a large transition is, and counts stages without reading their series."""

from collections.abc import Sequence

from alembic import op

revision: str = "0018"
down_revision: str | Sequence[str] | None = "0017"

# Of what an expression is, it takes a third to pass any bound: the statistics of indexes don't count if they are of
# some rows only, as ours are.
STATISTICS = {
    "st_stages_probability": "GREATEST(probability_a, probability_b)",
    "st_stages_size": "abs(delta_llc)",
}
COLUMNS = """g.tenant_id, g.series_id, s.name AS series_name, g.job_id, g.id, g.ordinal, g.kind, g.type, g.from_step,
       g.to_step, g.delta_loss, g.delta_loss_std_error, g.delta_llc, g.delta_llc_std_error, g.details,
       g.from_step_low, g.from_step_high, g.to_step_low, g.to_step_high,
       g.probability_a, g.probability_b, g.probability_neither, g.survival"""


def upgrade() -> None:
    """Apply."""
    for name, expression in STATISTICS.items():
        op.execute(f"CREATE STATISTICS {name} ON ({expression}) FROM stages")
    op.execute("ANALYZE stages")
    # A left join is left out where no column of the series is asked for; every stage has one.
    op.execute(
        f"CREATE OR REPLACE VIEW stage AS SELECT {COLUMNS} FROM stages g LEFT JOIN series s ON s.id = g.series_id"
    )


def downgrade() -> None:
    """Undo."""
    op.execute(f"CREATE OR REPLACE VIEW stage AS SELECT {COLUMNS} FROM stages g JOIN series s ON s.id = g.series_id")
    for name in STATISTICS:
        op.execute(f"DROP STATISTICS {name}")
