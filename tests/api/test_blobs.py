"""Uploads: streamed, hashed, kept whole or not at all."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from store.blobs import BlobStore
from tests.api.lab import Lab, refused, sha256


def test_an_upload_is_kept_once(lab: Lab, other_lab: Lab) -> None:
    content = lab.tenant_id.encode() * 1000
    path = f"/v1/blobs/{sha256(content)}"
    first, again, other = (client.put(path, content=content) for client in (lab, lab, other_lab))
    assert [response.status_code for response in (first, again, other)] == [201, 200, 201]
    assert first.json() == again.json() == {"sha256": sha256(content), "size": len(content)}
    assert BlobStore(lab.blob_dir).path(sha256(content)).read_bytes() == content


def test_an_upload_in_chunks_of_unknown_length(lab: Lab) -> None:
    chunks = [bytes([i]) * 70_000 for i in range(20)]
    response = lab.put(f"/v1/blobs/{sha256(b''.join(chunks))}", content=iter(chunks))
    assert response.status_code == 201
    assert response.json()["size"] == 1_400_000


def test_what_is_owned_need_not_be_uploaded(lab: Lab) -> None:
    mine, theirs = lab.upload(b"mine"), sha256(b"not posted yet")
    answer = lab.post("/v1/blobs:check", json={"sha256": [theirs, mine, mine]})
    assert answer.json() == {"owned": [mine], "missing": [theirs]}


def test_a_wrong_hash_leaves_nothing(lab: Lab) -> None:
    before = lab.everything()
    problem = refused(lab.put(f"/v1/blobs/{'0' * 64}", content=b"something"), 422, "wrong_hash")
    assert sha256(b"something") in problem["detail"]
    assert problem["hint"]
    assert lab.everything() == before


@pytest.mark.parametrize("name", ["x", "0" * 63, "G" * 64, "A" * 64, "%00", "..%2f..%2fetc%2fpasswd"])
def test_a_blob_is_called_by_its_hash(lab: Lab, name: str) -> None:
    before = lab.everything()
    response = lab.put(f"/v1/blobs/{name}", content=b"something")
    assert response.status_code in (404, 422)
    refused(response, response.status_code, response.json()["code"])
    assert lab.everything() == before


def _endless() -> Iterator[bytes]:
    for _ in range(200):
        yield b"\0" * 20_000


def test_too_large_an_upload_is_stopped(lab: Lab) -> None:
    """3 MB are allowed; 4 MB come, of unknown length."""
    before = lab.everything()
    refused(lab.put(f"/v1/blobs/{'0' * 64}", content=_endless()), 413, "too_large")
    assert lab.everything() == before


def test_too_large_an_upload_is_refused_before_it_comes(lab: Lab) -> None:
    host, port = lab.base_url.host, lab.base_url.port
    head = (
        f"PUT /v1/blobs/{'0' * 64} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {lab.api_key}\r\n"
        f"Content-Length: {10**12}\r\n\r\n"
    )
    with socket.create_connection((host, port or 80), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_an_upload_cut_short_leaves_nothing(lab: Lab) -> None:
    before = lab.everything()
    host, port = lab.base_url.host, lab.base_url.port
    head = (
        f"PUT /v1/blobs/{sha256(b'ab')} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {lab.api_key}\r\n"
        "Content-Length: 2\r\n\r\n"
    )
    with socket.create_connection((host, port or 80), timeout=10) as connection:
        connection.sendall(head.encode() + b"a")
        _wait_until(lambda: lab.everything()[1] > before[1])  # the first byte is on disk
    _wait_until(lambda: lab.everything() == before)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
