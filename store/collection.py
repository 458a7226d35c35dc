"""What nothing refers to any more: given up, and deleted, once nobody has shown an interest for a while.

A blob belongs to the tenants in `blob_owners`, and is referred to by data sets, checkpoints and draws. First a tenant's
ownership goes, then a blob that nobody owns, its row and its file in one go; last, files without a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from store.blobs import BlobStore

BATCH = 1000

_EXPIRE = text("DELETE FROM uploads WHERE expires_at < now() RETURNING id")

_STRIP = text(
    "UPDATE results SET draws = NULL WHERE draws IS NOT NULL AND created_at < now() - make_interval(secs => :seconds)"
)

_DISOWN = text(
    """
    DELETE FROM blob_owners o
    WHERE touched_at < now() - make_interval(secs => :grace)
      AND NOT EXISTS (SELECT 1 FROM datasets d WHERE d.blob = o.sha256 AND d.tenant_id = o.tenant_id)
      AND NOT EXISTS (SELECT 1 FROM checkpoints c WHERE c.blob = o.sha256 AND c.tenant_id = o.tenant_id)
      AND NOT EXISTS (SELECT 1 FROM checkpoints c WHERE c.source = o.sha256 AND c.tenant_id = o.tenant_id)
      AND NOT EXISTS (SELECT 1 FROM results r JOIN jobs j ON j.id = r.job_id
                      WHERE r.draws = o.sha256 AND j.tenant_id = o.tenant_id)
    """
)

_UNOWNED = text(
    "SELECT sha256 FROM blobs b WHERE NOT EXISTS (SELECT 1 FROM blob_owners o WHERE o.sha256 = b.sha256) LIMIT :batch"
)

_FORGET = text(
    "DELETE FROM blobs b WHERE sha256 = :sha256"
    " AND NOT EXISTS (SELECT 1 FROM blob_owners o WHERE o.sha256 = b.sha256) RETURNING 1"
)

_KNOWN = text("SELECT sha256 FROM blobs WHERE sha256 = ANY(:names)")


def expire_uploads(session: Session, blobs: BlobStore) -> int:
    """Give up those that took too long; how many."""
    expired = session.scalars(_EXPIRE).all()
    for upload_id in expired:
        blobs.part(upload_id).unlink(missing_ok=True)
    return len(expired)


def strip_draws(session: Session, older_than_seconds: float) -> None:
    """Let go of old draws; their results stay."""
    session.execute(_STRIP, {"seconds": older_than_seconds})


def disown(session: Session, grace_seconds: float) -> None:
    """End the ownership of what its tenant has not touched for so long and refers to no more."""
    session.execute(_DISOWN, {"grace": grace_seconds})


def delete_unowned(engine: Engine, blobs: BlobStore, grace_seconds: float) -> int:
    """Delete blobs that nobody owns, with their files; how many. Those whose file is young are left for later."""
    transaction = sessionmaker(engine).begin
    with transaction() as session:
        candidates = session.scalars(_UNOWNED, {"batch": BATCH}).all()
    return sum(_delete(engine, blobs, sha256, grace_seconds) for sha256 in candidates)


class _KeptError(Exception):
    """The file is young."""


def _delete(engine: Engine, blobs: BlobStore, sha256: str, grace_seconds: float) -> bool:
    """The row stays unless the file goes. Who brings the same bytes just now waits for the row, and makes both anew."""
    try:
        with sessionmaker(engine).begin() as session:
            gone = session.scalar(_FORGET, {"sha256": sha256}) is not None
            if gone and not blobs.remove(sha256, grace_seconds):
                raise _KeptError
            return gone
    except (_KeptError, IntegrityError):  # or somebody has referred to it meanwhile
        return False


def delete_orphans(engine: Engine, blobs: BlobStore, grace_seconds: float) -> int:
    """Delete files that have no row, left by what was killed between the two; how many."""
    return sum(
        blobs.remove(sha256, grace_seconds) for names in _batches(blobs.names()) for sha256 in _unknown(engine, names)
    )


def _batches(names: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(names, BATCH)):
        yield batch


def _unknown(engine: Engine, names: Sequence[str]) -> Iterable[str]:
    with sessionmaker(engine).begin() as session:
        return sorted(set(names) - set(session.scalars(_KNOWN, {"names": list(names)})))
