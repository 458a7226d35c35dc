"""Bytes on disk, addressed by their SHA-256. What has its name is whole: written beside, synced, then renamed."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from llc.errors import InputError
from store.errors import DiskFullError, TooLargeError


class BlobStore:
    """A folder of blobs, shared by the API and the workers: `root/ab/cd/abcd…`; in `root/uploads` what is under way, in
    `root/saved` what shards have computed so far. floor_bytes: of the disk, which files from outside leave free.
    """

    def __init__(self, root: Path, floor_bytes: int = 0) -> None:
        self.root = root
        self._floor_bytes = floor_bytes

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

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A path for a folder of files to `adopt`, on the blobs' own disk. Its writer makes it; it goes at the end."""
        folder = self._new_upload()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def adopt(self, path: Path) -> tuple[str, int]:
        """Make a file of `scratch` a blob, without a copy: (SHA-256 as hex, size)."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
            os.fsync(file.fileno())
        self.move_in(path, sha256)
        return sha256, size

    def move_in(self, path: Path, sha256: str) -> None:
        """Give a synced file its name."""
        target = self.path(sha256)
        _make_folder(target.parent, self.root)
        path.replace(target)
        sync_folder(target.parent)

    def part(self, upload_id: str) -> Path:
        """The file of an upload in parts."""
        return self._uploads / f"{upload_id}.part"

    def room(self) -> int:
        """How many bytes may come from outside; below 0, if the disk is fuller than it should be."""
        self.root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.root).free - self._floor_bytes

    def require_room(self, num_bytes: int) -> None:
        """Refuse what would leave less than the floor. Raises: DiskFullError."""
        if num_bytes > self.room():
            raise DiskFullError

    def remove(self, sha256: str, older_than_seconds: float) -> bool:
        """Delete a blob that nothing refers to; False if its file is young: somebody is just bringing it again."""
        path, aside = self.path(sha256), self._new_upload()
        limit = time.time() - older_than_seconds
        try:
            if path.stat().st_mtime > limit:
                return False
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)
        except FileNotFoundError:
            return True
        if aside.stat().st_mtime > limit:  # it was brought in between
            aside.replace(path)
            return False
        aside.unlink()
        return True

    def names(self) -> Iterator[str]:
        """The SHA-256 of every blob on the disk."""
        for path in self.root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"):
            yield path.name

    def saved(self, shard_id: str) -> Path:
        """The file of what a shard has computed so far, if any."""
        return self.root / "saved" / shard_id

    def forget(self, shard_id: str) -> None:
        """A shard has ended: nobody will resume it."""
        for path in (self.root / "saved").glob(f"{shard_id}*"):
            path.unlink(missing_ok=True)

    def upload(self, max_bytes: int) -> "Incoming":
        """A file to write to, for who brings the chunks one by one."""
        path = self._new_upload()
        path.parent.mkdir(parents=True, exist_ok=True)
        return Incoming(self, path, max_bytes)

    def remove_abandoned(self, older_than_seconds: float) -> int:
        """Delete what killed processes left of uploads, and what nobody resumed; how many files there were."""
        limit = time.time() - older_than_seconds
        left = [*self._uploads.glob("*.tmp"), *self._uploads.glob("*.part"), *(self.root / "saved").glob("*")]
        abandoned = [path for path in left if _is_older(path, limit)]
        for path in abandoned:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return len(abandoned)

    def _new_upload(self) -> Path:
        return self._uploads / f"{uuid.uuid4().hex}.tmp"

    @property
    def _uploads(self) -> Path:
        return self.root / "uploads"


class Incoming:
    """Bytes on their way to becoming a blob. A context: what was not kept at its end is gone."""

    def __init__(self, store: BlobStore, path: Path, max_bytes: int) -> None:
        self._store = store
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append. Raises: TooLargeError."""
        self.size += len(chunk)
        if self.size > self._max_bytes:
            raise TooLargeError("the upload", self._max_bytes)
        self._hash.update(chunk)
        self._file.write(chunk)

    def keep(self, sha256: str) -> int:
        """End the upload as the blob `sha256`; its size. Raises: InputError `wrong_hash`."""
        if self._hash.hexdigest() != sha256:
            raise InputError(
                "wrong_hash",
                f"the {self.size} bytes received have the SHA-256 {self._hash.hexdigest()}, not {sha256}",
                "send the file again; if this stays, hash the very bytes that are sent",
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._store.move_in(self._path, sha256)
        return self.size

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


def _is_older(path: Path, limit: float) -> bool:
    try:
        return path.stat().st_mtime < limit
    except FileNotFoundError:  # it has been given another name, or is gone
        return False


def _make_folder(folder: Path, root: Path) -> None:
    """Make a folder below the root such that a power cut doesn't undo it: each new entry's parent is synced."""
    if folder == root or folder.is_dir():
        return
    _make_folder(folder.parent, root)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in it last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
