"""How much a tenant has, and may have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.errors import QuotaError
from store.settings import StoreSettings
from store.tables import Blob, BlobOwner, Checkpoint, Job, Shard, Tenant, Upload


@dataclass(frozen=True)
class Use:
    """Of one thing. limit: None where there is none."""

    used: int
    limit: int | None


def _bytes(session: Session, tenant_id: str) -> int:
    """Of files, and of those on their way."""
    kept = select(func.coalesce(func.sum(Blob.size), 0)).join(BlobOwner, BlobOwner.sha256 == Blob.sha256)
    coming = select(func.coalesce(func.sum(Upload.size), 0)).where(Upload.tenant_id == tenant_id)
    owned = kept.where(BlobOwner.tenant_id == tenant_id)
    return int(session.scalars(owned).one()) + int(session.scalars(coming).one())


def _checkpoints(session: Session, tenant_id: str) -> int:
    return session.scalars(select(func.count()).select_from(Checkpoint).where(Checkpoint.tenant_id == tenant_id)).one()


def _queued_shards(session: Session, tenant_id: str) -> int:
    alive = Job.tenant_id == tenant_id, Shard.state.in_(("queued", "running"))
    return session.scalars(
        select(func.count()).select_from(Shard).join(Job, Job.id == Shard.job_id).where(*alive)
    ).one()


COUNTS: Mapping[str, Callable[[Session, str], int]] = {
    "bytes": _bytes,
    "checkpoints": _checkpoints,
    "queued_shards": _queued_shards,
}


def usage(session: Session, settings: StoreSettings, tenant_id: str) -> dict[str, Use]:
    """What a tenant uses of what it may."""
    tenant = session.get_one(Tenant, tenant_id)
    return {what: Use(count(session, tenant_id), _limit(tenant, settings, what)) for what, count in COUNTS.items()}


def set_limits(tenant: Tenant, limits: Mapping[str, int]) -> None:
    """Of its own; -1: those of all tenants."""
    for what, limit in limits.items():
        setattr(tenant, f"max_{what}", None if limit < 0 else limit)


def require_room(
    session: Session, settings: StoreSettings, tenant_id: str, what: str, more: int, is_added: bool = False
) -> None:
    """Refuse what would be too much, or is, if it is added already. Until the transaction ends, nobody else adds to the
    tenant's. Raises: QuotaError.
    """
    tenant = session.get_one(Tenant, tenant_id)
    limit = _limit(tenant, settings, what)
    if limit is None:
        return
    session.refresh(tenant, with_for_update={"key_share": True})
    used = COUNTS[what](session, tenant_id) - more * is_added
    if used + more > limit:
        raise QuotaError(what.replace("_", " "), used, more, limit)


def room(session: Session, settings: StoreSettings, tenant_id: str, what: str) -> int | None:
    """How much more there may be, at least 0; None: there is no limit."""
    limit = _limit(session.get_one(Tenant, tenant_id), settings, what)
    return None if limit is None else max(0, limit - COUNTS[what](session, tenant_id))


def _limit(tenant: Tenant, settings: StoreSettings, what: str) -> int | None:
    own: int | None = getattr(tenant, f"max_{what}")
    common: int | None = getattr(settings, f"tenant_{what}")
    return common if own is None else own
