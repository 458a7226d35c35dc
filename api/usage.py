"""/v1/usage: how much a tenant has, and may have."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Reader, Shared
from api.problems import RESPONSES
from api.reads import ReadRoute
from store import quotas

router = APIRouter(prefix="/v1/usage", tags=["keys"], responses=RESPONSES, route_class=ReadRoute)


class UseOut(BaseModel):
    """Of one thing."""

    model_config = ConfigDict(from_attributes=True)
    used: int
    limit: int | None = Field(description="null: none.")


class UsageOut(BaseModel):
    """Of everything that there may be a limit of."""

    bytes: UseOut = Field(description="Of files, and of uploads on their way.")
    checkpoints: UseOut
    queued_shards: UseOut = Field(description="Parts of jobs that wait or run.")


@router.get("", summary="What is used, and what may be")
def get_usage(key: Reader, shared: Shared) -> UsageOut:
    with shared.reading() as session:
        used = quotas.usage(session, shared.settings, key.tenant_id)
    return UsageOut.model_validate({what: UseOut.model_validate(use) for what, use in used.items()})
