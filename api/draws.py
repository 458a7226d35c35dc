"""/v1/jobs/{id}/draws: what the chains behind a result left, as files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, StreamingResponse

from api.dependencies import Reader, Shared, State
from api.problems import RESPONSES
from llc.draw_files import read_draws, write_netcdf
from llc.errors import InputError
from store import results
from store.errors import NotFoundError
from store.owned import find
from store.tables import Job

router = APIRouter(prefix="/v1/jobs/{job_id}/draws", tags=["jobs"], responses=RESPONSES)

MAX_CONVERTED_BYTES = 256 * 2**20
CHUNK_BYTES = 2**20
_SAFETENSORS, _NETCDF = "application/octet-stream", "application/netcdf"
_FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (_SAFETENSORS, _NETCDF)}}
}


@router.get(
    "/{checkpoint_id}",
    summary="Download the draws behind a result",
    response_class=Response,
    responses=_FILES,
)
def get_draws(
    job_id: str,
    checkpoint_id: str,
    key: Reader,
    shared: Shared,
    measure: Annotated[str, Query(max_length=100, description="Of this measure's chains.")] = "llc",
    format: Annotated[
        Literal["safetensors", "netcdf"],
        Query(description="safetensors: every array as it was, for llc.draw_files; netcdf: ArviZ's groups."),
    ] = "safetensors",
) -> Response:
    with shared.reading() as session:
        job = find(session, Job, key.tenant_id, job_id)
        sha256 = results.draws(session, job.id, checkpoint_id, measure)
    path = shared.blobs.path(sha256)
    if not path.is_file():
        raise NotFoundError("file of draws", sha256, "it is gone from the blob store; run the job again")
    if format == "netcdf":
        return _as_netcdf(shared, path, f"{checkpoint_id}.{measure}.nc")
    name = f"{checkpoint_id}.{measure}.safetensors"
    return FileResponse(path, headers={"ETag": f'"{sha256}"'}, media_type=_SAFETENSORS, filename=name)


def _as_netcdf(shared: State, path: Path, name: str) -> Response:
    size = path.stat().st_size
    if size > MAX_CONVERTED_BYTES:
        raise InputError(
            "too_large_to_convert",
            f"the draws have {size} bytes; up to {MAX_CONVERTED_BYTES} are converted here",
            "take them as safetensors, and convert them with llc.draw_files.write_netcdf(read_draws(file), target)",
        )
    shared.blobs.require_room(2 * size)
    with shared.blobs.scratch() as scratch:
        scratch.mkdir(parents=True)
        write_netcdf(read_draws(path), scratch / name)
        file = (scratch / name).open("rb")  # it has no name any more when it is sent, so nothing can stay behind
        length = (scratch / name).stat().st_size
    headers = {"Content-Length": str(length), "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_chunks(file), headers=headers, media_type=_NETCDF)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
