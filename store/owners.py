"""Whose a blob is. A tenant learns nothing of blobs it did not post.

Who asks whether it owns a blob means to refer to it soon: for GRACE_HOURS after the last such sign it is not collected.
"""

from collections.abc import Iterable

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import NotFoundError
from store.tables import Blob, BlobOwner

GRACE_HOURS = 24


def add_owner(session: Session, tenant_id: str, sha256: str, size: int) -> bool:
    """Record that a tenant posted a blob, or its job made it; True if it is new to the tenant."""
    # An update where nothing changes waits for a collector that is just deleting the row.
    blob = insert(Blob).values(sha256=sha256, size=size)
    session.execute(blob.on_conflict_do_update(index_elements=["sha256"], set_={"size": size}))
    owner = insert(BlobOwner).values(tenant_id=tenant_id, sha256=sha256)
    keys = ["tenant_id", "sha256"]
    kept = owner.on_conflict_do_update(index_elements=keys, set_={"touched_at": func.now()})
    return bool(session.scalar(kept.returning(text("xmax = 0"))))


def owned(session: Session, tenant_id: str, hashes: Iterable[str]) -> set[str]:
    """Those of the hashes whose blobs the tenant posted."""
    ours = BlobOwner.tenant_id == tenant_id, BlobOwner.sha256.in_(list(hashes))
    an_hour_ago = func.now() - func.make_interval(0, 0, 0, 0, 1)
    session.execute(update(BlobOwner).where(*ours, BlobOwner.touched_at < an_hour_ago).values(touched_at=func.now()))
    return set(session.scalars(select(BlobOwner.sha256).where(*ours)))


def require_owned(session: Session, tenant_id: str, sha256: str) -> None:
    """Refuse a blob that the tenant did not post. Raises: NotFoundError."""
    if not owned(session, tenant_id, [sha256]):
        raise NotFoundError("blob", sha256, f"upload it first: PUT /v1/blobs/{sha256}")
