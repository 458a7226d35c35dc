"""/v1/series/{id}/checkpoints: the parameters at a step of training."""

from collections.abc import Sequence

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from api.dependencies import Reader, Shared, Writer
from api.fields import Body, Metrics, Sha256, Step, Timestamp
from api.paging import After, Limit, Page, page, position
from api.problems import RESPONSES
from api.reads import ReadRoute, reads_a_file
from store import quotas
from store.owned import find
from store.series import add_checkpoint, checkpoints
from store.tables import Checkpoint, Series

router = APIRouter(
    prefix="/v1/series/{series_id}/checkpoints", tags=["checkpoints"], responses=RESPONSES, route_class=ReadRoute
)

_EXAMPLE = {
    "step": 1000,
    "blob": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "metrics": {"train_loss": 0.0021, "test_accuracy": 0.98},
}


class NewCheckpoint(Body):
    """A checkpoint: exactly the model's parameters, all of them finite, as a safetensors file or of
    `torch.save(model.state_dict(), path)`.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})
    step: Step
    blob: Sha256
    metrics: Metrics = Field(default_factory=dict)


class CheckpointOut(BaseModel):
    """A checkpoint."""

    id: str
    series: str = Field(validation_alias="series_id")
    step: int
    blob: str = Field(description="SHA-256 of the safetensors file.")
    source: str | None = Field(description="SHA-256 of the torch file that it was made of, if one was posted.")
    metrics: dict[str, float]
    created_at: Timestamp


_LIST = TypeAdapter(list[CheckpointOut])
_CURSOR = TypeAdapter(Step)


def _show(rows: Sequence[Checkpoint]) -> list[CheckpointOut]:
    return _LIST.validate_python(rows, from_attributes=True)


@router.post(
    "",
    summary="Add a checkpoint",
    status_code=201,
    responses={200: {"model": CheckpointOut, "description": "The series had it already."}},
)
@reads_a_file
def post_checkpoint(
    series_id: str, body: NewCheckpoint, response: Response, key: Writer, shared: Shared
) -> CheckpointOut:
    """Posting the same step with the same blob again changes nothing; with another blob it is refused."""
    with shared.session() as session:
        checkpoint, is_new = add_checkpoint(
            session, shared.blobs, key.tenant_id, series_id, body.step, body.blob, body.metrics
        )
        if is_new:
            quotas.require_room(session, shared.settings, key.tenant_id, "checkpoints", 1, is_added=True)
            if checkpoint.source is not None:  # what it became is the tenant's, too
                quotas.require_room(session, shared.settings, key.tenant_id, "bytes", 0)
        else:
            response.status_code = 200
        return _show([checkpoint])[0]


@router.get("", summary="List checkpoints by step")
def list_checkpoints(
    series_id: str, key: Reader, shared: Shared, limit: Limit = 50, after: After = None
) -> Page[CheckpointOut]:
    with shared.reading() as session:
        series = find(session, Series, key.tenant_id, series_id)
        rows = checkpoints(session, series.id, position(after, _CURSOR), limit + 1)
        return page(rows, limit, lambda row: row.step, _show)
