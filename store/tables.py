"""The tables. Alembic's revisions make them; a test holds both together.

Every clock is the database's (`now()`), every id the application's. What belongs to a tenant carries its id.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JOB_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
QUEUES = ("auto", "cpu", "gpu")
JSON = dict[str, Any]


class Base(DeclarativeBase):
    """Types and naming common to all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        int: BigInteger,
        float: Float(53),
        bool: Boolean,
        datetime: DateTime(timezone=True),
        JSON: JSONB,
        list[str]: JSONB,
        list[JSON]: JSONB,
    }


def _created_at() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


def _computed(of: str) -> Mapped[Any]:
    return mapped_column(Computed(of, persisted=True), deferred=True)


def _tenant() -> Mapped[str]:
    return mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))


def _state_check() -> CheckConstraint:
    return CheckConstraint(f"state IN {JOB_STATES}", name="state")


class Tenant(Base):
    """A lab: owns everything below. max_…: its quotas, where they are not those of all (store.settings)."""

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    max_bytes: Mapped[int | None]
    max_checkpoints: Mapped[int | None]
    max_queued_shards: Mapped[int | None]
    created_at: Mapped[datetime] = _created_at()


class ApiKey(Base):
    """A key `lh_<id>_<secret><crc>`, of which only the hash is kept."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    name: Mapped[str]
    secret_hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = _created_at()
    revoked_at: Mapped[datetime | None]
    __table_args__ = (Index(None, "tenant_id"),)


class Blob(Base):
    """Bytes on disk, addressed by their SHA-256."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int]
    created_at: Mapped[datetime] = _created_at()
    __table_args__ = (CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),)


class BlobOwner(Base):
    """Who posted a blob, or whose job made it. A tenant learns nothing of blobs it doesn't own.

    touched_at: when there was last a sign that it is wanted; what nothing refers to is collected a while later.
    """

    __tablename__ = "blob_owners"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), primary_key=True)
    created_at: Mapped[datetime] = _created_at()
    touched_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (Index(None, "sha256"),)


class Upload(Base):
    """A blob that is sent in parts. How far it is, its file knows (store.uploads)."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    sha256: Mapped[str]
    size: Mapped[int]
    created_at: Mapped[datetime] = _created_at()
    expires_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("tenant_id", "sha256"),)


class Dataset(Base):
    """Named arrays of n samples. `arrays`: {name: llc.data.ArrayInfo}."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    name: Mapped[str]
    blob: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    arrays: Mapped[JSON]
    num_samples: Mapped[int]
    created_at: Mapped[datetime] = _created_at()
    __table_args__ = (Index(None, "tenant_id", "id"), Index(None, "blob"))


class Model(Base):
    """A model described by data. `spec`: llc.models.ModelSpec."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    name: Mapped[str]
    spec: Mapped[JSON]
    num_parameters: Mapped[int]
    created_at: Mapped[datetime] = _created_at()
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index("ix_models_family", "tenant_id", text("(spec ->> 'family')")),
    )


class Series(Base):
    """The checkpoints of one training run, with the model they fill and the data they are measured on."""

    __tablename__ = "series"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    name: Mapped[str]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    tags: Mapped[JSON] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = _created_at()
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index("ix_series_tags", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
    )


class Checkpoint(Base):
    """A step of training and the parameters there.

    source: the file that was posted, if it was torch's; `blob` is then the safetensors file made of it.
    """

    __tablename__ = "checkpoints"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    series_id: Mapped[str] = mapped_column(ForeignKey("series.id", ondelete="CASCADE"))
    step: Mapped[int]
    blob: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    source: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    metrics: Mapped[JSON] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = _created_at()
    __table_args__ = (
        UniqueConstraint("series_id", "step"),
        CheckConstraint("step >= 0", name="step"),
        Index(None, "tenant_id"),
        Index(None, "blob"),
        Index(None, "source", postgresql_where=text("source IS NOT NULL")),
    )


class Job(Base):
    """Measures and settings (llc.settings.JobSettings) applied to a series.

    calibration: how a pilot chose the settings of the LLC, which then stand in `settings`; null if they were given;
    plan: how all shards send rows through the model (llc.planning), null until the first has measured it, unless an
    earlier job was like this one; following: checkpoints that the series has later are measured, too (store.following);
    num_checkpoints: that its shards name; unread: there are results that the stages were not read with.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    series_id: Mapped[str] = mapped_column(ForeignKey("series.id", ondelete="CASCADE"))
    settings: Mapped[JSON]
    calibration: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))
    plan: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))
    state: Mapped[str] = mapped_column(server_default="queued")
    following: Mapped[bool] = mapped_column(server_default=text("false"))
    num_checkpoints: Mapped[int] = mapped_column(Integer, server_default="0")
    unread: Mapped[bool] = mapped_column(server_default=text("false"))
    cancel_requested_at: Mapped[datetime | None]
    error: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = _created_at()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        _state_check(),
        Index(None, "tenant_id", "id"),
        Index(None, "series_id", "id"),
        Index("ix_jobs_following", "id", postgresql_where=text("following")),
    )


class Shard(Base):
    """The unit of lease: checkpoints of a job that one process computes together, or the job's first act, the pilot
    that chooses settings, or its last, its stages.

    kind 'calibrate' | 'measure' | 'stages'; whoever has to wait for others has a run_at that never comes until then.
    attempt: how often it was claimed; failures, losses: attempts in a row that got no further than `furthest`
    row-steps, and ended by themselves, or with their worker.
    """

    __tablename__ = "shards"
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    ordinal: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(server_default="measure")
    queue: Mapped[str] = mapped_column(server_default="auto")
    checkpoint_ids: Mapped[list[str]]
    state: Mapped[str] = mapped_column(server_default="queued")
    run_at: Mapped[datetime] = mapped_column(server_default=func.now())
    dispatched_at: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    max_attempts: Mapped[int] = mapped_column(Integer, server_default="5")
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    losses: Mapped[int] = mapped_column(Integer, server_default="0")
    furthest: Mapped[int] = mapped_column(server_default="0")
    fence: Mapped[int] = mapped_column(server_default="0")
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    work_total: Mapped[int] = mapped_column(server_default="0")
    work_done: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        _state_check(),
        CheckConstraint("kind IN ('calibrate', 'measure', 'stages')", name="kind"),
        CheckConstraint(f"queue IN {QUEUES}", name="queue"),
        UniqueConstraint("job_id", "ordinal"),
        Index("ix_shards_due", "run_at", postgresql_where=text("state = 'queued'")),
        Index("ix_shards_leased", "lease_expires_at", postgresql_where=text("state = 'running'")),
    )


class Result(Base):
    """What one measure of one job found at one checkpoint: exactly one row.

    quantities: {quantity: {value, std_error}}, null where there is no finite number, with a verdict and a reason where
    these are not the measure's; details: what else there is;
    draws: the file of `llc.draw_files`, if there is one;
    curve_names, curve_values: of its quantities, what curves are put together from (migration 0017).
    """

    __tablename__ = "results"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True)
    measure: Mapped[str] = mapped_column(primary_key=True)
    shard_id: Mapped[str] = mapped_column(ForeignKey("shards.id", ondelete="CASCADE"))
    fence: Mapped[int]
    quantities: Mapped[JSON]
    details: Mapped[JSON]
    verdict: Mapped[str]
    reason: Mapped[str]
    draws: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    created_at: Mapped[datetime] = _created_at()
    curve_names: Mapped[str] = _computed("curve_names(measure, quantities)")
    curve_values: Mapped[str | None] = _computed("curve_values(quantities, verdict, NULL::text[])")
    __table_args__ = (
        Index(None, "shard_id"),
        Index(None, "checkpoint_id"),
        Index("ix_results_draws", "draws", postgresql_where=text("draws IS NOT NULL")),
    )


_TRANSITIONS = text("kind = 'transition'")


class Stage(Base):
    """A transition or a plateau of a job's LLC curve. kind 'transition' | 'plateau'; type 'A', 'B' or null: neither.

    …_low, …_high: 90 % intervals of both ends, null where an older version read the curve; probabilities: of a
    transition's types, null where the loss is not known; survival: the share of an ensemble's members that have the
    transition, null without one.
    """

    __tablename__ = "stages"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    series_id: Mapped[str] = mapped_column(ForeignKey("series.id", ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    ordinal: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    type: Mapped[str | None]
    from_step: Mapped[int]
    from_step_low: Mapped[int | None]
    from_step_high: Mapped[int | None]
    to_step: Mapped[int]
    to_step_low: Mapped[int | None]
    to_step_high: Mapped[int | None]
    probability_a: Mapped[float | None]
    probability_b: Mapped[float | None]
    probability_neither: Mapped[float | None]
    delta_loss: Mapped[float | None]
    delta_loss_std_error: Mapped[float | None]
    delta_llc: Mapped[float | None]
    delta_llc_std_error: Mapped[float | None]
    survival: Mapped[float | None]
    details: Mapped[JSON]
    __table_args__ = (
        UniqueConstraint("job_id", "ordinal"),
        CheckConstraint("kind IN ('transition', 'plateau')", name="kind"),
        CheckConstraint("type IN ('A', 'B')", name="type"),
        Index("ix_stages_series_id_job_id", "series_id", "job_id"),
        Index("ix_stages_transitions", "tenant_id", "job_id", "ordinal", postgresql_where=_TRANSITIONS),
        Index("ix_stages_type", "tenant_id", "type", postgresql_where=_TRANSITIONS),
        Index(
            "ix_stages_probability",
            "tenant_id",
            text("GREATEST(probability_a, probability_b)"),
            postgresql_where=_TRANSITIONS,
        ),
        Index("ix_stages_probability_a", "tenant_id", "probability_a", postgresql_where=_TRANSITIONS),
        Index("ix_stages_probability_b", "tenant_id", "probability_b", postgresql_where=_TRANSITIONS),
        Index("ix_stages_size", "tenant_id", text("abs(delta_llc)"), postgresql_where=_TRANSITIONS),
        Index("ix_stages_to_step", "tenant_id", "to_step", postgresql_where=_TRANSITIONS),
        Index("ix_stages_survival", "tenant_id", "survival", postgresql_where=_TRANSITIONS),
    )


class Event(Base):
    """What happened to a job, in order. kind: `job.queued`, `shard.started`, `job.succeeded`, ..."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    data: Mapped[JSON]
    created_at: Mapped[datetime] = _created_at()
    __table_args__ = (
        Index(None, "job_id", "id"),
        Index("ix_events_lease_expired", "id", postgresql_where=text("data -> 'error' ->> 'code' = 'lease_expired'")),
    )


class Webhook(Base):
    """An address that is told of events. events: kinds, or '*'; secret: signs what is sent, `whsec_…`, and so does the
    one before it for a while after it was replaced.

    lease_expires_at, fence: of the sender that is at it, one at a time; the lease ends, and is not forgotten, when that
    is done, so that who waited longest comes next; paused_until: the receiver asked for it.
    """

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    url: Mapped[str]
    events: Mapped[list[str]]
    description: Mapped[str]
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    previous_secret_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    last_delivered_at: Mapped[datetime | None]
    paused_until: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = _created_at()
    __table_args__ = (
        CheckConstraint("disabled_reason IN ('asked', 'gone', 'failing')", name="disabled_reason"),
        Index(None, "tenant_id", "id"),
    )


class Delivery(Base):
    """What a webhook is told: this very body, under this id, in every attempt. next_attempt_at: null once it ended."""

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = _tenant()
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[str]
    body: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    last_attempt_at: Mapped[datetime | None]
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = _created_at()
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
        Index(None, "webhook_id", "id"),
        Index(None, "ended_at"),
        Index("ix_webhook_deliveries_due", "webhook_id", "next_attempt_at", postgresql_where=text("state = 'pending'")),
    )


class IdempotencyKey(Base):
    """What was answered to a request with this key. fingerprint: of the request."""

    __tablename__ = "idempotency_keys"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int] = mapped_column(Integer)
    headers: Mapped[dict[str, str]] = mapped_column(JSONB)
    body: Mapped[str]
    created_at: Mapped[datetime] = _created_at()
    __table_args__ = (Index(None, "created_at"),)
