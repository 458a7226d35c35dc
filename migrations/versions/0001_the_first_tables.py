"""The first tables, and the curve and its stages as views for psql, notebooks and Grafana."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | Sequence[str] | None = None

VIEWS = """
CREATE VIEW llc_curve AS
SELECT j.tenant_id, j.series_id, s.name AS series_name, r.job_id, r.checkpoint_id, c.step, r.measure,
       q.key AS quantity,
       (q.value ->> 'value')::float8 AS value,
       (q.value ->> 'std_error')::float8 AS std_error,
       r.verdict, r.reason, r.created_at
FROM results r
JOIN jobs j ON j.id = r.job_id
JOIN series s ON s.id = j.series_id
JOIN checkpoints c ON c.id = r.checkpoint_id
CROSS JOIN LATERAL jsonb_each(r.quantities) q;

COMMENT ON VIEW llc_curve IS
'The curve: one row for each job, checkpoint and quantity (llc, loss, hessian_trace, ...). Filter by job_id and
quantity, order by step. value and std_error are null where there is no finite number; believe a value only if its
verdict says so, the reason says why not.';

CREATE VIEW stage AS
SELECT j.tenant_id, j.series_id, s.name AS series_name, g.job_id, g.id, g.ordinal, g.kind, g.type, g.from_step,
       g.to_step, g.delta_loss, g.delta_loss_std_error, g.delta_llc, g.delta_llc_std_error, g.details
FROM stages g
JOIN jobs j ON j.id = g.job_id
JOIN series s ON s.id = j.series_id;

COMMENT ON VIEW stage IS
'Plateaus and transitions of the LLC curve of a job, in order (ordinal), from training step from_step to to_step.
type of a transition: A, the loss falls and the LLC rises; B, the LLC falls while the loss changes only slightly;
null: neither.';
"""


def upgrade() -> None:
    """The first tables."""
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_blobs_sha256")),
        sa.PrimaryKeyConstraint("sha256", name="pk_blobs"),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_api_keys_tenant_id_tenants", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("secret_hash", name="uq_api_keys_secret_hash"),
    )
    op.create_index("ix_api_keys_tenant_id", "api_keys", ["tenant_id"])
    op.create_table(
        "blob_owners",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name="fk_blob_owners_sha256_blobs"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_blob_owners_tenant_id_tenants", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "sha256", name="pk_blob_owners"),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("arrays", postgresql.JSONB(), nullable=False),
        sa.Column("num_samples", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["blob"], ["blobs.sha256"], name="fk_datasets_blob_blobs"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_datasets_tenant_id_tenants", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
    )
    op.create_index("ix_datasets_tenant_id_id", "datasets", ["tenant_id", "id"])
    op.create_table(
        "models",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(), nullable=False),
        sa.Column("num_parameters", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_models_tenant_id_tenants", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
    )
    op.create_index("ix_models_tenant_id_id", "models", ["tenant_id", "id"])
    op.create_table(
        "series",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("tags", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_series_dataset_id_datasets"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_series_model_id_models"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_series_tenant_id_tenants", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
    )
    op.create_index("ix_series_tenant_id_id", "series", ["tenant_id", "id"])
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("series_id", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("step >= 0", name=op.f("ck_checkpoints_step")),
        sa.ForeignKeyConstraint(["blob"], ["blobs.sha256"], name="fk_checkpoints_blob_blobs"),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name="fk_checkpoints_series_id_series", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_checkpoints_tenant_id_tenants", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoints"),
        sa.UniqueConstraint("series_id", "step", name="uq_checkpoints_series_id_step"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("series_id", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_jobs_state")
        ),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name="fk_jobs_series_id_series", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_jobs_tenant_id_tenants", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_series_id_id", "jobs", ["series_id", "id"])
    op.create_index("ix_jobs_tenant_id_id", "jobs", ["tenant_id", "id"])
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id_jobs", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_events_tenant_id_tenants", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_job_id_id", "events", ["job_id", "id"])
    op.create_table(
        "shards",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="measure", nullable=False),
        sa.Column("queue", sa.Text(), server_default="auto", nullable=False),
        sa.Column("checkpoint_ids", postgresql.JSONB(), nullable=False),
        sa.Column("plan", postgresql.JSONB(), nullable=True),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default="5", nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("work_total", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("work_done", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('measure', 'stages')", name=op.f("ck_shards_kind")),
        sa.CheckConstraint("queue IN ('auto', 'cpu', 'gpu')", name=op.f("ck_shards_queue")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_shards_state")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_shards_job_id_jobs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_shards"),
        sa.UniqueConstraint("job_id", "ordinal", name="uq_shards_job_id_ordinal"),
    )
    op.create_index("ix_shards_due", "shards", ["run_at"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("ix_shards_leased", "shards", ["lease_expires_at"], postgresql_where=sa.text("state = 'running'"))
    op.create_table(
        "stages",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("from_step", sa.BigInteger(), nullable=False),
        sa.Column("to_step", sa.BigInteger(), nullable=False),
        sa.Column("delta_loss", sa.Float(precision=53), nullable=True),
        sa.Column("delta_loss_std_error", sa.Float(precision=53), nullable=True),
        sa.Column("delta_llc", sa.Float(precision=53), nullable=True),
        sa.Column("delta_llc_std_error", sa.Float(precision=53), nullable=True),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("kind IN ('transition', 'plateau')", name=op.f("ck_stages_kind")),
        sa.CheckConstraint("type IN ('A', 'B')", name=op.f("ck_stages_type")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_stages_job_id_jobs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_stages"),
        sa.UniqueConstraint("job_id", "ordinal", name="uq_stages_job_id_ordinal"),
    )
    op.create_table(
        "results",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("shard_id", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("quantities", postgresql.JSONB(), nullable=False),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("draws", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_results_checkpoint_id_checkpoints", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["draws"], ["blobs.sha256"], name="fk_results_draws_blobs"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_results_job_id_jobs", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["shard_id"], ["shards.id"], name="fk_results_shard_id_shards", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "checkpoint_id", "measure", name="pk_results"),
    )
    op.create_index("ix_results_shard_id", "results", ["shard_id"])
    op.execute(VIEWS)


def downgrade() -> None:
    """Undo it."""
    op.execute("DROP VIEW stage, llc_curve")
    op.drop_table("results")
    op.drop_table("stages")
    op.drop_table("shards")
    op.drop_table("events")
    op.drop_table("jobs")
    op.drop_table("checkpoints")
    op.drop_table("series")
    op.drop_table("models")
    op.drop_table("datasets")
    op.drop_table("blob_owners")
    op.drop_table("api_keys")
    op.drop_table("tenants")
    op.drop_table("blobs")
