"""Uploads in parts: cut, gone on with, completed; refused before anything is sent."""

import hashlib
import io
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from store.blobs import BlobStore
from store.errors import NotFoundError
from store.tables import Upload
from store.uploads import keep
from tests.api.conftest import new_lab, serving
from tests.api.lab import SPEC, Lab, created, data, parameters, refused, sha256


def begin(lab: Lab, content: bytes) -> str:
    """The path of a new upload."""
    response = lab.post("/v1/uploads", json={"sha256": sha256(content), "size": len(content)})
    assert response.status_code == 201, response.text
    assert response.json()["offset"] == 0
    return response.headers["Location"]


def send(lab: Lab, path: str, offset: int, content: bytes) -> httpx.Response:
    return lab.patch(path, content=content, headers={"Upload-Offset": str(offset)})


def test_parts_become_a_blob(lab: Lab) -> None:
    content = os.urandom(2_500_000)
    path = begin(lab, content)
    for offset in range(0, len(content), 1_000_000):
        response = send(lab, path, offset, content[offset : offset + 1_000_000])
        assert response.status_code == 204
        assert response.headers["Upload-Offset"] == str(min(offset + 1_000_000, len(content)))
    assert created(lab.post(f"{path}/complete")) == {"sha256": sha256(content), "size": len(content)}
    assert BlobStore(lab.blob_dir).path(sha256(content)).read_bytes() == content
    assert lab.post("/v1/blobs:check", json={"sha256": [sha256(content)]}).json()["missing"] == []
    refused(lab.get(path), 404, "not_found")
    again = lab.post("/v1/uploads", json={"sha256": sha256(content), "size": len(content)})
    assert (again.status_code, again.json()["id"]) == (200, None)


def test_an_upload_that_was_cut_goes_on_where_it_was(lab: Lab) -> None:
    content = os.urandom(1_000_000)
    path = begin(lab, content)
    host, port = lab.base_url.host, lab.base_url.port or 80
    head = f"PATCH {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {lab.api_key}\r\nUpload-Offset: 0\r\n"
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:400_000])
    deadline = time.monotonic() + 10
    while (there := int(lab.head(path).headers["Upload-Offset"])) < 400_000:
        assert time.monotonic() < deadline
    assert there == 400_000
    begun_again = lab.post("/v1/uploads", json={"sha256": sha256(content), "size": len(content)})
    assert (begun_again.status_code, begun_again.json()["offset"]) == (200, there)
    assert begun_again.headers["Location"] == path
    refused(lab.post(f"{path}/complete"), 409, "upload_incomplete")
    for wrong in (0, there - 1, there + 1):
        problem = refused(send(lab, path, wrong, b"x"), 409, "wrong_offset")
        assert str(there) in problem["hint"]
    assert send(lab, path, there, content[there:]).status_code == 204
    created(lab.post(f"{path}/complete"))


def test_only_one_request_writes_at_a_time(lab: Lab) -> None:
    content = os.urandom(2_000_000)
    path = begin(lab, content)
    host, port = lab.base_url.host, lab.base_url.port or 80
    head = f"PATCH {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {lab.api_key}\r\nUpload-Offset: 0\r\n"
    deadline = time.monotonic() + 20
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:1_900_000])
        while (there := int(lab.head(path).headers["Upload-Offset"])) == 0:
            assert time.monotonic() < deadline
        refused(send(lab, path, there, content[there:]), 409, "upload_busy")
        refused(lab.delete(path), 409, "upload_busy")
    while True:
        there = int(lab.head(path).headers["Upload-Offset"])
        if send(lab, path, there, content[there:]).status_code == 204:
            break
        assert time.monotonic() < deadline
    created(lab.post(f"{path}/complete"))


def test_two_that_begin_at_once_begin_the_same(lab: Lab) -> None:
    with ThreadPoolExecutor(8) as threads:
        for n in range(10):
            body = {"sha256": sha256(f"{lab.tenant_id} {n}".encode()), "size": 9}
            answers = list(threads.map(lambda body: lab.post("/v1/uploads", json=body), [body] * 8))
            assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
            assert len({answer.json()["id"] for answer in answers}) == 1


def test_what_is_given_up_is_nobodys(lab: Lab) -> None:
    """In the moment between the file's move and the row's end."""
    path = begin(lab, b"all of it")
    with Session(lab.engine) as session:
        upload = session.get_one(Upload, path.rpartition("/")[2])
        assert lab.delete(path).status_code == 204
        with pytest.raises(NotFoundError, match="no upload"):
            keep(session, upload)


def test_what_does_not_hash_to_its_name_is_gone(lab: Lab) -> None:
    before = lab.everything()
    path = begin(lab, b"announced")
    send(lab, path, 0, b"different")
    problem = refused(lab.post(f"{path}/complete"), 422, "wrong_hash")
    assert sha256(b"different") in problem["detail"]
    assert lab.head(path).headers["Upload-Offset"] == "0"
    assert lab.delete(path).status_code == 204
    assert lab.everything() == before


def test_more_than_was_announced_is_refused(lab: Lab) -> None:
    path = begin(lab, b"four")
    refused(send(lab, path, 0, b"fives"), 413, "too_large")
    assert lab.head(path).headers["Upload-Offset"] == "0"
    refused(lab.post("/v1/uploads", json={"sha256": "0" * 64, "size": 3_000_001}), 413, "too_large")
    refused(lab.post("/v1/uploads", json={"sha256": sha256(b"four"), "size": 5}), 422, "wrong_size")


def test_the_same_bytes_are_as_new_to_each_tenant(lab: Lab, other_lab: Lab) -> None:
    content = lab.tenant_id.encode()
    created(lab.put(f"/v1/blobs/{sha256(content)}", content=content))
    path = begin(other_lab, content)
    refused(lab.get(path), 404, "not_found")
    assert lab.head(path).status_code == 404
    refused(other_lab.post(f"{path}/complete"), 409, "upload_incomplete")
    send(other_lab, path, 0, content)
    created(other_lab.post(f"{path}/complete"))


@pytest.fixture
def strict(environment: dict[str, str], engine: Engine, blob_dir: Path) -> Iterator[Lab]:
    """A tenant of a service where each may have 10 000 bytes, two checkpoints and three shards."""
    limits = {"TENANT_BYTES": "10000", "TENANT_CHECKPOINTS": "2", "TENANT_QUEUED_SHARDS": "3"}
    with (
        serving(environment | {f"LAMBDAHAT_{name}": limit for name, limit in limits.items()}) as url,
        new_lab(url, engine, blob_dir) as lab,
    ):
        yield lab


def test_quotas(strict: Lab) -> None:
    series = strict.series()
    for step in (0, 1):
        strict.checkpoint(series, step)
    blob = strict.upload(parameters(2))
    before = strict.everything()
    body = {"step": 2, "blob": blob, "metrics": {}}
    problem = refused(strict.post(f"/v1/series/{series}/checkpoints", json=body), 403, "quota_exceeded")
    assert "1 more checkpoints than the 2 of now" in problem["detail"]
    refused(
        strict.post("/v1/jobs", json={"series": series, "checkpoints_per_shard": 1, "measures": {"llc": "auto"}}),
        403,
        "quota_exceeded",
    )
    used = strict.get("/v1/usage").json()
    assert used["checkpoints"] == {"used": 2, "limit": 2}
    assert used["queued_shards"] == {"used": 0, "limit": 3}
    free = 10_000 - used["bytes"]["used"]
    assert 0 < free < 10_000
    refused(strict.put(f"/v1/blobs/{'0' * 64}", content=b"x" * (free + 1)), 403, "quota_exceeded")
    refused(strict.post("/v1/uploads", json={"sha256": "0" * 64, "size": free + 1}), 403, "quota_exceeded")
    assert strict.everything() == before
    # Nor of unknown length, as soon as it is too much.
    refused(strict.put(f"/v1/blobs/{'0' * 64}", content=iter([b"x" * (free + 1)])), 403, "quota_exceeded")
    assert strict.everything() == before
    path = begin(strict, b"x" * free)  # what is announced is taken
    refused(strict.put(f"/v1/blobs/{sha256(b'y')}", content=b"y"), 403, "quota_exceeded")
    assert strict.delete(path).status_code == 204
    created(strict.put(f"/v1/blobs/{sha256(b'y')}", content=b"y"))
    created(
        strict.post(f"/v1/series/{series}/checkpoints", json={**body, "step": 0, "blob": strict.upload(parameters(0))})
    )
    strict.job(series, checkpoints_per_shard=1)
    assert strict.get("/v1/usage").json()["queued_shards"]["used"] == 3


def test_a_disk_that_is_almost_full_is_left_alone(environment: dict[str, str], engine: Engine, blob_dir: Path) -> None:
    floor = {"LAMBDAHAT_DISK_FLOOR_BYTES": str(2**62)}
    with serving(environment | floor) as url, new_lab(url, engine, blob_dir) as lab:
        before = lab.everything()
        refused(lab.put(f"/v1/blobs/{sha256(b'x')}", content=b"x"), 507, "disk_full")
        refused(lab.put(f"/v1/blobs/{sha256(b'x')}", content=iter([b"x"])), 507, "disk_full")
        refused(lab.post("/v1/uploads", json={"sha256": sha256(b"x"), "size": 1}), 507, "disk_full")
        assert lab.everything() == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        # The tests are to pass for ordinary users, too. That a disk is *almost* full is tested for them above.
        pytest.skip("only root may mount a disk that is small enough to fill: run the tests as root for this one")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_a_disk_that_is_full(environment: dict[str, str], engine: Engine, small_disk: Path) -> None:
    here = {"LAMBDAHAT_BLOB_DIR": str(small_disk), "LAMBDAHAT_DISK_FLOOR_BYTES": "0"}
    content = os.urandom(2_000_000)
    name = hashlib.sha256(content).hexdigest()
    with serving(environment | here) as url, new_lab(url, engine, small_disk) as lab:
        # Of unknown length, so that it can't be refused before.
        refused(lab.put(f"/v1/blobs/{name}", content=iter([content[:900_000], content[900_000:]])), 507, "disk_full")
        assert list((small_disk / "uploads").iterdir()) == []
        state = io.BytesIO()
        torch.save({"weight": torch.zeros(150_000)}, state)  # there is room for it, but not for what it would become
        series = lab.series()
        blob = lab.upload(state.getvalue())
        checkpoint = {"step": 0, "blob": blob, "metrics": {}}
        refused(lab.post(f"/v1/series/{series}/checkpoints", json=checkpoint), 507, "disk_full")
        assert list((small_disk / "uploads").iterdir()) == []
        small = lab.upload(data())
        assert created(lab.post("/v1/datasets", json={"name": "data", "blob": small}))["num_samples"] == 8
        assert created(lab.post("/v1/models", json={"name": "model", "spec": SPEC}))
