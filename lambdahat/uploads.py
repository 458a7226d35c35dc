"""Files by their hash, and sending a large one in parts."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx

from lambdahat.errors import ApiError, ServerUnreachableError
from lambdahat.http import BUSY, Transport, pause_seconds

CHUNK_BYTES = 2**20
OFFSET = "Upload-Offset"
BUSY_SECONDS = 120.0


def sha256_of(source: str | Path | bytes) -> str:
    """Of a file, or of bytes, as hex."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with Path(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def send_in_parts(http: Transport, file: IO[bytes], sha256: str, size: int, part_bytes: int) -> None:
    """Have the server keep a file, from where an earlier call was cut."""
    begun = http.json("POST", "/v1/uploads", json={"sha256": sha256, "size": size}, idempotent=True)
    if begun["id"] is None:
        return
    path = f"/v1/uploads/{begun['id']}"
    try:
        _send_rest(http, path, file, int(begun["offset"]), size, part_bytes)
        _patiently(lambda: http.send("POST", f"{path}/complete", idempotent=True))
    except ApiError as error:
        # Complete already, if the answer was lost, or by another that sent the same: it is gone, and the blob is ours.
        check = {"sha256": [sha256]}
        if error.status != 404 or not http.json("POST", "/v1/blobs:check", json=check, idempotent=True)["owned"]:
            raise


def _send_rest(http: Transport, path: str, file: IO[bytes], offset: int, size: int, part_bytes: int) -> None:
    failures = 0
    while offset < size:
        before = offset
        try:
            offset = _send_part(http, path, file, offset, min(part_bytes, size - offset))
        except (ApiError, ServerUnreachableError) as error:
            if failures == http.retries or (isinstance(error, ApiError) and not _can_go_on(error)):
                raise
            time.sleep(pause_seconds(failures))
            offset = int(http.send("HEAD", path).headers[OFFSET])
        failures = 0 if offset > before else failures + 1


def _send_part(http: Transport, path: str, file: IO[bytes], offset: int, num_bytes: int) -> int:
    """The offset after it."""
    headers = {OFFSET: str(offset), "Content-Type": "application/octet-stream"}
    answer = _patiently(
        lambda: http.send("PATCH", path, content=lambda: _chunks(file, offset, num_bytes), headers=headers)
    )
    return int(answer.headers[OFFSET])


def _can_go_on(error: ApiError) -> bool:
    """The part before arrived although its answer did not; or the server is busy."""
    return error.code == "wrong_offset" or error.status in BUSY


def _patiently(act: Callable[[], httpx.Response]) -> httpx.Response:
    """Wait for another request that has the upload to itself: to hash a large file takes a minute, and so does the
    server to notice that a connection is dead.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return act()
        except ApiError as error:
            if error.code != "upload_busy" or time.monotonic() > deadline:
                raise
        time.sleep(pause_seconds(2))


def _chunks(file: IO[bytes], start: int, num_bytes: int) -> Iterator[bytes]:
    file.seek(start)
    while num_bytes > 0 and (chunk := file.read(min(CHUNK_BYTES, num_bytes))):
        num_bytes -= len(chunk)
        yield chunk
