"""/v1/blobs: bytes by their SHA-256, for data sets and checkpoints to refer to."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from api.dependencies import Reader, Shared, State, Writer
from api.fields import Body, Sha256
from api.problems import RESPONSES
from api.reads import ReadRoute
from store import owners, quotas
from store.errors import TooLargeError

router = APIRouter(prefix="/v1", tags=["blobs"], responses=RESPONSES, route_class=ReadRoute)

BATCH_BYTES = 2**20
"""What is written at once: each time another thread is asked to."""

RAW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_HASH = "0f343b0931126a20f133d67c2b018a3b1d2c34c6f4b6b8a1f2d7c9e1a3b5d7f9"


class BlobOut(BaseModel):
    """A blob that the tenant owns."""

    sha256: str
    size: int


class CheckBlobs(Body):
    """Hashes to ask about."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sha256": [_HASH]}]})
    sha256: list[Sha256] = Field(max_length=10_000)


class CheckedBlobs(BaseModel):
    """Which blobs need no upload, and which do."""

    owned: list[str]
    missing: list[str]


@router.put(
    "/blobs/{sha256}",
    summary="Upload a file",
    status_code=201,
    responses={200: {"model": BlobOut, "description": "You owned it already."}},
    openapi_extra=RAW_BODY,
)
async def put_blob(
    sha256: Annotated[Sha256, Path(description="SHA-256 of the body, as 64 hexadecimal digits.")],
    request: Request,
    response: Response,
    key: Writer,
    shared: Shared,
) -> BlobOut:
    """The raw bytes are hashed while they are written; if they hash to something else, nothing is kept.

    Large files rather go to `/v1/uploads`, where they can be sent in parts.
    """
    limit, announced = shared.settings.max_blob_bytes, int(request.headers.get("Content-Length", "0"))
    if announced > limit:
        raise TooLargeError("the upload", limit)
    await run_in_threadpool(_require_room, shared, key.tenant_id, announced)
    with shared.blobs.upload(limit) as upload:
        async for chunk in batches(request):
            await run_in_threadpool(upload.write, chunk)
            if upload.size > announced:  # of a body that does not say how long it will be
                await run_in_threadpool(_require_room, shared, key.tenant_id, upload.size, upload.size)
        size = await run_in_threadpool(upload.keep, sha256)
    if not await run_in_threadpool(_add_owner, shared, key.tenant_id, sha256, size):
        response.status_code = 200
    return BlobOut(sha256=sha256, size=size)


async def batches(request: Request) -> AsyncIterator[bytes]:
    """A body's bytes as they come, not too few at once; cut short, all that came before the cut."""
    batch, size = list[bytes](), 0
    try:
        async for chunk in request.stream():
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH_BYTES:
                yield b"".join(batch)
                batch, size = [], 0
    except ClientDisconnect:
        yield b"".join(batch)
        raise
    yield b"".join(batch)


def _require_room(shared: State, tenant_id: str, size: int, written: int = 0) -> None:
    """For a file of this size, of which so much is on the disk already."""
    shared.blobs.require_room(size - written)
    with shared.session() as session:
        quotas.require_room(session, shared.settings, tenant_id, "bytes", size)


def _add_owner(shared: State, tenant_id: str, sha256: str, size: int) -> bool:
    with shared.session() as session:
        is_new = owners.add_owner(session, tenant_id, sha256, size)
        if is_new:
            quotas.require_room(session, shared.settings, tenant_id, "bytes", size, is_added=True)
        return is_new


@router.post("/blobs:check", summary="Which of these files need no upload")
def check_blobs(body: CheckBlobs, key: Reader, shared: Shared) -> CheckedBlobs:
    with shared.session() as session:
        owned = owners.owned(session, key.tenant_id, body.sha256)
    hashes = list(dict.fromkeys(body.sha256))
    return CheckedBlobs(
        owned=[sha256 for sha256 in hashes if sha256 in owned],
        missing=[sha256 for sha256 in hashes if sha256 not in owned],
    )
