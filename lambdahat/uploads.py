"""Files by their hash, and sending a large one in parts."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lambdahat.errors import ApiError, ServerUnreachableError
from lambdahat.http import BUSY, Transport, pause_seconds

CHUNK_BYTES = 2**20
OFFSET = "Upload-Offset"


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
    path, offset, failures = f"/v1/uploads/{begun['id']}", int(begun["offset"]), 0
    while offset < size:
        try:
            offset = _send_part(http, path, file, offset, min(part_bytes, size - offset))
            failures = 0
        except (ApiError, ServerUnreachableError) as error:
            if failures == http.retries or (isinstance(error, ApiError) and not _can_go_on(error)):
                raise
            time.sleep(pause_seconds(failures))
            failures += 1
            offset = int(http.send("HEAD", path).headers[OFFSET])
    _complete(http, path, sha256)


def _send_part(http: Transport, path: str, file: IO[bytes], offset: int, num_bytes: int) -> int:
    """The offset after it."""
    headers = {OFFSET: str(offset), "Content-Type": "application/octet-stream"}
    answer = http.send("PATCH", path, content=lambda: _chunks(file, offset, num_bytes), headers=headers)
    return int(answer.headers[OFFSET])


def _can_go_on(error: ApiError) -> bool:
    """The part before arrived although its answer did not, or is still being written; or the server is busy."""
    return error.code in ("wrong_offset", "upload_busy") or error.status in BUSY


def _chunks(file: IO[bytes], start: int, num_bytes: int) -> Iterator[bytes]:
    file.seek(start)
    while num_bytes > 0 and (chunk := file.read(min(CHUNK_BYTES, num_bytes))):
        num_bytes -= len(chunk)
        yield chunk


def _complete(http: Transport, path: str, sha256: str) -> None:
    """If it was complete already, and the answer was lost, it is gone by now, and the blob is ours."""
    try:
        http.send("POST", f"{path}/complete", idempotent=True)
    except ApiError as error:
        check = {"sha256": [sha256]}
        if error.status != 404 or not http.json("POST", "/v1/blobs:check", json=check, idempotent=True)["owned"]:
            raise
