"""Whose a blob is. A tenant learns nothing of blobs it did not post."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import NotFoundError
from store.tables import Blob, BlobOwner


def add_owner(session: Session, tenant_id: str, sha256: str, size: int) -> bool:
    """Record that a tenant posted a blob; True if it is new to the tenant."""
    session.execute(insert(Blob).values(sha256=sha256, size=size).on_conflict_do_nothing())
    added = insert(BlobOwner).values(tenant_id=tenant_id, sha256=sha256).on_conflict_do_nothing()
    return session.scalar(added.returning(BlobOwner.sha256)) is not None


def owned(session: Session, tenant_id: str, hashes: Iterable[str]) -> set[str]:
    """Those of the hashes whose blobs the tenant posted."""
    query = select(BlobOwner.sha256).where(BlobOwner.tenant_id == tenant_id, BlobOwner.sha256.in_(list(hashes)))
    return set(session.scalars(query))


def require_owned(session: Session, tenant_id: str, sha256: str) -> None:
    """Refuse a blob that the tenant did not post. Raises: NotFoundError."""
    if not owned(session, tenant_id, [sha256]):
        raise NotFoundError("blob", sha256, f"upload it first: PUT /v1/blobs/{sha256}")
