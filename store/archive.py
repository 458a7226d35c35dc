"""A tar file written and read in one pass, whose every part can be proven."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar, cast

from pydantic import BaseModel

from llc.errors import InputError

CHUNK = 2**20
LARGEST_NOTE = 2**24
"""Bytes of a note, at most."""

Note = TypeVar("Note", bound=BaseModel)


def damaged(detail: str) -> InputError:
    """The file is not what was written."""
    return InputError("damaged_backup", f"the backup is damaged: {detail}", "take another; this one restores nothing")


class Hashed:
    """A file, with the hash of what goes through and a word on how much that is."""

    def __init__(self, file: IO[bytes], step: Callable[[int], None] = lambda _: None) -> None:
        self._file, self._step, self._hash = file, step, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        return self._seen(self._file.read(size))

    def write(self, data: Any) -> None:
        self._file.write(self._seen(bytes(data)))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def _seen(self, data: bytes) -> bytes:
        self._hash.update(data)
        self._step(len(data))
        return data


def add(tar: tarfile.TarFile, name: str, size: int, file: Any) -> None:
    """Add what a file holds."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    tar.addfile(info, file)
    cast(Any, tar).members.clear()  # of which there may be millions


def add_note(tar: tarfile.TarFile, name: str, note: BaseModel) -> str:
    """Add it with its hash; the hash."""
    content = note.model_dump_json().encode()
    sha256 = hashlib.sha256(content).hexdigest()
    content += f"\n{sha256}\n".encode()
    add(tar, name, len(content), io.BytesIO(content))
    return sha256


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """What is in it, each to be read before the next. Raises: InputError `damaged_backup`."""
    for member in tar:
        if not member.isreg():
            raise damaged(f"'{member.name}' is no file")
        yield member
        cast(Any, tar).members.clear()


def read_note(tar: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, kind: type[Note]) -> tuple[str, Note]:
    """What `add_note` added, and its hash. Raises: InputError `no_backup`, `damaged_backup`."""
    if member is None or member.name != name or member.size > LARGEST_NOTE:
        raise InputError("no_backup", f"this is no backup: it has no {name}", "lambdahat backup writes one")
    content, _, sha256 = b"".join(chunks(tar, member)).rstrip(b"\n").rpartition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != sha256:
        raise damaged(f"{name} is not what was written")
    return sha256.decode(), kind.model_validate(json.loads(content))


def chunks(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """All of a member. Raises: InputError `damaged_backup`."""
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    left = member.size
    while left:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise damaged("it ends too early")
        left -= len(chunk)
        yield chunk
