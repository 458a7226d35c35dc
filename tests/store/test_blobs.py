"""A blob is whole or not there."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llc.errors import InputError
from store.blobs import BlobStore
from store.errors import TooLargeError

HASH = hashlib.sha256(b"hello world").hexdigest()


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_what_is_put_is_there(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "new" / "root")
    assert blobs.put(b"hello world") == (HASH, 11)
    assert blobs.path(HASH) == blobs.root / HASH[:2] / HASH[2:4] / HASH
    assert blobs.path(HASH).read_bytes() == b"hello world"
    assert blobs.receive([b"hello", b" ", b"world"], HASH, 11) == 11
    assert files(blobs.root) == [blobs.path(HASH)]


def test_putting_again_mends_a_broken_file(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    blobs.put(b"hello world")
    blobs.path(HASH).write_bytes(b"hello")
    blobs.put(b"hello world")
    assert blobs.path(HASH).read_bytes() == b"hello world"


def test_an_empty_blob(tmp_path: Path) -> None:
    assert BlobStore(tmp_path).put(b"") == (hashlib.sha256(b"").hexdigest(), 0)


def test_a_wrong_hash_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        BlobStore(tmp_path).receive([b"hello"], HASH, 100)
    assert caught.value.code == "wrong_hash"
    assert files(tmp_path) == []


def test_too_much_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError):
        BlobStore(tmp_path).receive([b"hello ", b"world"], HASH, 10)
    assert files(tmp_path) == []


def test_a_source_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"hello"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        BlobStore(tmp_path).receive(broken(), HASH, 100)
    assert files(tmp_path) == []


def test_a_file_becomes_a_blob_and_its_folder_goes(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    with blobs.scratch() as scratch:
        scratch.mkdir(parents=True)
        for name in ("draws", "the same again", "left over"):
            (scratch / name).write_bytes(b"hello world")
        assert blobs.adopt(scratch / "draws") == (HASH, 11)
        assert blobs.adopt(scratch / "the same again") == (HASH, 11)
    with blobs.scratch():
        pass  # nobody wrote anything
    assert files(tmp_path) == [blobs.path(HASH)]
    assert blobs.path(HASH).read_bytes() == b"hello world"


def test_only_old_uploads_are_abandoned(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    blobs.put(b"kept")
    for name, age in (("old", 100), ("young", 0)):
        path, folder = tmp_path / "uploads" / f"{name}.tmp", tmp_path / "uploads" / f"{name} folder.tmp"
        path.write_bytes(b"half")
        folder.mkdir()
        (folder / "draws").write_bytes(b"half")
        for abandoned in (path, folder):
            os.utime(abandoned, (time.time() - age, time.time() - age))
    assert blobs.remove_abandoned(50) == 2
    assert sorted(path.name for path in (tmp_path / "uploads").iterdir()) == ["young folder.tmp", "young.tmp"]
    assert len(files(tmp_path)) == 3
