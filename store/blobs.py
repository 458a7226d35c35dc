"""Bytes on disk, addressed by their SHA-256. What has its name is whole: written beside, synced, then renamed."""

import hashlib
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from llc.errors import InputError
from store.errors import TooLargeError


class BlobStore:
    """A folder of blobs, shared by the API and the workers: `root/ab/cd/abcd…`, uploads under way in `root/uploads`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where the blob of this hash is, or would be."""
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def put(self, data: bytes) -> tuple[str, int]:
        """Keep these bytes: (SHA-256 as hex, size)."""
        sha256 = hashlib.sha256(data).hexdigest()
        return sha256, self.receive([data], sha256, len(data))

    def receive(self, chunks: Iterable[bytes], sha256: str, max_bytes: int) -> int:
        """Keep what comes in chunks, if it hashes to `sha256`; the size. On any failure nothing stays.

        Raises: TooLargeError; InputError `wrong_hash`.
        """
        with self.upload(max_bytes) as upload:
            for chunk in chunks:
                upload.write(chunk)
            return upload.keep(sha256)

    def upload(self, max_bytes: int) -> "Upload":
        """A file to write to, for who brings the chunks one by one."""
        folder = self._uploads
        folder.mkdir(parents=True, exist_ok=True)
        return Upload(self, folder / f"{uuid.uuid4().hex}.tmp", max_bytes)

    def remove_abandoned(self, older_than_seconds: float) -> int:
        """Delete what killed processes left of uploads; how many there were."""
        limit = time.time() - older_than_seconds
        abandoned = [path for path in self._uploads.glob("*.tmp") if path.stat().st_mtime < limit]
        for path in abandoned:
            path.unlink(missing_ok=True)
        return len(abandoned)

    @property
    def _uploads(self) -> Path:
        return self.root / "uploads"


class Upload:
    """Bytes on their way to becoming a blob. A context: what was not kept at its end is gone."""

    def __init__(self, store: BlobStore, path: Path, max_bytes: int) -> None:
        self._store = store
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """Append. Raises: TooLargeError."""
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise TooLargeError("the upload", self._max_bytes)
        self._hash.update(chunk)
        self._file.write(chunk)

    def keep(self, sha256: str) -> int:
        """End the upload as the blob `sha256`; its size. Raises: InputError `wrong_hash`."""
        if self._hash.hexdigest() != sha256:
            raise InputError(
                "wrong_hash",
                f"the {self._size} bytes received have the SHA-256 {self._hash.hexdigest()}, not {sha256}",
                "send the file again; if this stays, hash the very bytes that are sent",
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        target = self._store.path(sha256)
        _make_folder(target.parent, self._store.root)
        self._path.replace(target)
        _sync_folder(target.parent)
        return self._size

    def discard(self) -> None:
        """Give up what was not kept."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()


def _make_folder(folder: Path, root: Path) -> None:
    """Make a folder below the root such that a power cut doesn't undo it: each new entry's parent is synced."""
    if folder == root or folder.is_dir():
        return
    _make_folder(folder.parent, root)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
