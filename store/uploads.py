"""Uploads in parts: begun, sent piece by piece, gone on with after whatever cut them, and completed.

The row says whose it is and what it is to be; how far it is, the size of its file says, so that no two can disagree.
"""

import fcntl
import hashlib
import os
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from llc.errors import InputError
from store import owners
from store.blobs import BlobStore
from store.errors import ConflictError, NotFoundError, TooLargeError
from store.ids import new_id
from store.owned import find
from store.tables import Upload


def begin(session: Session, tenant_id: str, sha256: str, size: int, seconds: float) -> tuple[Upload, bool]:
    """The tenant's upload of this blob, to be completed within so long, and whether it is new."""
    upload_id, expires_at = new_id("upl"), func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    values = {"id": upload_id, "tenant_id": tenant_id, "sha256": sha256, "size": size, "expires_at": expires_at}
    begun = insert(Upload).values(values)
    prolonged = begun.on_conflict_do_update(index_elements=["tenant_id", "sha256"], set_={"expires_at": expires_at})
    upload = session.scalars(prolonged.returning(Upload)).one()
    if upload.size != size:
        raise InputError(
            "wrong_size", f"an upload of {sha256} was begun with {upload.size} bytes, not {size}", "DELETE it first"
        )
    return upload, upload.id == upload_id


def end(session: Session, blobs: BlobStore, tenant_id: str, upload_id: str) -> None:
    """Give an upload up. Raises: NotFoundError; ConflictError `upload_busy`."""
    upload = find(session, Upload, tenant_id, upload_id)
    with Part(blobs, upload) as part:
        session.delete(upload)
        part.remove()


def keep(session: Session, upload: Upload) -> bool:
    """Its file has become a blob: the tenant's. Whether that is new to it. Raises: NotFoundError, if it was given up or
    has expired, since only what is under way has a place in the tenant's quota.
    """
    if session.scalar(delete(Upload).where(Upload.id == upload.id).returning(Upload.id)) is None:
        raise NotFoundError("upload", upload.id, "it was given up meanwhile; begin again")
    return owners.add_owner(session, upload.tenant_id, upload.sha256, upload.size)


class Part:
    """The file of an upload, while one request has it to itself. A context. Raises: ConflictError `upload_busy`."""

    def __init__(self, blobs: BlobStore, upload: Upload) -> None:
        self._blobs, self._upload = blobs, upload
        self._path = blobs.part(upload.id)
        self._file = _locked(self._path)
        self.offset = os.fstat(self._file.fileno()).st_size

    def expect(self, offset: int) -> None:
        """Raises: ConflictError `wrong_offset`, unless it has so many bytes."""
        if offset != self.offset:
            raise ConflictError(
                "wrong_offset",
                f"upload '{self._upload.id}' has {self.offset} bytes, so nothing can be added at {offset}",
                f"go on from {self.offset}; HEAD says how far it is",
            )

    def write(self, chunk: bytes) -> None:
        """Append. Raises: TooLargeError, if it would be more than was announced."""
        if self.offset + len(chunk) > self._upload.size:
            raise TooLargeError("the upload", self._upload.size)
        self._file.write(chunk)
        self.offset += len(chunk)

    def complete(self) -> None:
        """Make it the blob that was announced.

        Raises: ConflictError `upload_incomplete`; InputError `wrong_hash`, and all of it is gone.
        """
        if self.offset < self._upload.size:
            raise ConflictError(
                "upload_incomplete", f"{self.offset} of {self._upload.size} bytes are here", "PATCH the rest first"
            )
        self._file.seek(0)
        found = hashlib.file_digest(self._file, "sha256").hexdigest()
        if found != self._upload.sha256:
            self.remove()
            raise InputError(
                "wrong_hash",
                f"the {self.offset} bytes received have the SHA-256 {found}, not {self._upload.sha256}",
                "begin again; if this stays, hash the very bytes that are sent",
            )
        os.fsync(self._file.fileno())
        self._blobs.move_in(self._path, self._upload.sha256)

    def remove(self) -> None:
        """It is not wanted any more."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def _locked(path: Path) -> FileIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = FileIO(path, "ab+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConflictError(
            "upload_busy", "another request is writing to this upload", "wait for it, or try again in a second"
        ) from None
    return file
