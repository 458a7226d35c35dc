"""/v1/uploads: large files, sent in parts that can be gone on with after whatever cut them."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from api.blobs import RAW_BODY, BlobOut, batches
from api.dependencies import Reader, Shared, State, Writer
from api.fields import Body, Sha256, Timestamp
from api.problems import RESPONSES
from api.reads import ReadRoute, reads_a_file
from api.root_path import link
from store import owners, quotas, uploads
from store.errors import TooLargeError
from store.owned import find
from store.tables import Upload
from store.uploads import Part

router = APIRouter(prefix="/v1/uploads", tags=["blobs"], responses=RESPONSES, route_class=ReadRoute)

OFFSET = "Upload-Offset"
_HASH = "0f343b0931126a20f133d67c2b018a3b1d2c34c6f4b6b8a1f2d7c9e1a3b5d7f9"
_FAR = {"description": "How far it is.", "headers": {OFFSET: {"schema": {"type": "integer"}}}}

Offset = Annotated[
    int, Header(alias=OFFSET, ge=0, le=2**62, description="Bytes that are there: where the body goes on.")
]


class NewUpload(Body):
    """A file to come."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sha256": _HASH, "size": 2_000_000}]})
    sha256: Sha256
    size: int = Field(ge=0, lt=2**62, description="Bytes of the whole file.")


class UploadOut(BaseModel):
    """A file on its way, or one that needs none."""

    id: str | None = Field(description="null: you own the blob already, and there is nothing to send.")
    sha256: str
    size: int
    offset: int = Field(description="Bytes that are there.")
    expires_at: Timestamp | None


@router.post(
    "",
    summary="Begin to upload a file, or go on",
    status_code=201,
    responses={200: {"model": UploadOut, "description": "It is under way, or you own it already."}},
)
def post_upload(body: NewUpload, request: Request, response: Response, key: Writer, shared: Shared) -> UploadOut:
    """Refused here, before anything is sent, if it would be too much."""
    if body.size > shared.settings.max_blob_bytes:
        raise TooLargeError("the upload", shared.settings.max_blob_bytes)
    with shared.session() as session:
        if owners.owned(session, key.tenant_id, [body.sha256]):
            response.status_code = 200
            return UploadOut(id=None, sha256=body.sha256, size=body.size, offset=body.size, expires_at=None)
        upload, is_new = uploads.begin(session, key.tenant_id, body.sha256, body.size, shared.settings.upload_seconds)
        if is_new:
            shared.blobs.require_room(body.size)
            quotas.require_room(session, shared.settings, key.tenant_id, "bytes", body.size, is_added=True)
        response.status_code = 201 if is_new else 200
        response.headers["Location"] = link(request, f"/v1/uploads/{upload.id}")
        return _show(shared, upload)


@router.get("/{upload_id}", summary="Get an upload")
def get_upload(upload_id: str, key: Reader, shared: Shared) -> UploadOut:
    with shared.reading() as session:
        return _show(shared, find(session, Upload, key.tenant_id, upload_id))


@router.head("/{upload_id}", summary="How far an upload is", responses={200: _FAR}, response_class=Response)
def head_upload(upload_id: str, key: Reader, shared: Shared) -> Response:
    upload = _find(shared, key.tenant_id, upload_id)
    return Response(headers={OFFSET: str(_offset(shared, upload)), "Upload-Length": str(upload.size)})


@router.patch("/{upload_id}", summary="Send a part", status_code=204, responses={204: _FAR}, openapi_extra=RAW_BODY)
async def patch_upload(upload_id: str, request: Request, key: Writer, shared: Shared, offset: Offset) -> Response:
    """The raw bytes from `Upload-Offset` on, however many. What arrives is kept, even if the request is cut short."""
    upload = await run_in_threadpool(_find, shared, key.tenant_id, upload_id)
    with Part(shared.blobs, upload) as part:
        part.expect(offset)
        async for chunk in batches(request):
            await run_in_threadpool(part.write, chunk)
    return Response(status_code=204, headers={OFFSET: str(part.offset)})


@router.post("/{upload_id}/complete", summary="Make an upload a blob", status_code=201)
@reads_a_file
def complete_upload(upload_id: str, key: Writer, shared: Shared) -> BlobOut:
    """All of it is read again and hashed; if it hashes to something else, all of it is gone."""
    upload = _find(shared, key.tenant_id, upload_id)
    with Part(shared.blobs, upload) as part:
        part.complete()
    with shared.session() as session:
        uploads.keep(session, upload)
    return BlobOut(sha256=upload.sha256, size=upload.size)


@router.delete("/{upload_id}", summary="Give an upload up", status_code=204)
def delete_upload(upload_id: str, key: Writer, shared: Shared) -> None:
    with shared.session() as session:
        uploads.end(session, shared.blobs, key.tenant_id, upload_id)


def _find(shared: State, tenant_id: str, upload_id: str) -> Upload:
    with shared.reading() as session:
        return find(session, Upload, tenant_id, upload_id)


def _offset(shared: State, upload: Upload) -> int:
    try:
        return shared.blobs.part(upload.id).stat().st_size
    except FileNotFoundError:  # nothing has come, or all of it is a blob by now
        return 0


def _show(shared: State, upload: Upload) -> UploadOut:
    return UploadOut(
        id=upload.id,
        sha256=upload.sha256,
        size=upload.size,
        offset=_offset(shared, upload),
        expires_at=upload.expires_at,
    )
