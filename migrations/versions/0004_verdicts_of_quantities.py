"""A quantity may have a verdict of its own, which the curve shows in place of its measure's."""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"

CURVE = """
CREATE OR REPLACE VIEW llc_curve AS
SELECT j.tenant_id, j.series_id, s.name AS series_name, r.job_id, r.checkpoint_id, c.step, r.measure,
       q.key AS quantity,
       (q.value ->> 'value')::float8 AS value,
       (q.value ->> 'std_error')::float8 AS std_error,
       {verdict}, {reason}, r.created_at
FROM results r
JOIN jobs j ON j.id = r.job_id
JOIN series s ON s.id = j.series_id
JOIN checkpoints c ON c.id = r.checkpoint_id
CROSS JOIN LATERAL jsonb_each(r.quantities) q
"""


def upgrade() -> None:
    """Apply."""
    own = {name: f"coalesce(q.value ->> '{name}', r.{name}) AS {name}" for name in ("verdict", "reason")}
    op.execute(CURVE.format(**own))


def downgrade() -> None:
    """Undo."""
    op.execute(CURVE.format(verdict="r.verdict", reason="r.reason"))
