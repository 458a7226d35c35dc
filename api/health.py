"""/healthz: the process lives. /readyz: what it needs is there. Both without a key."""

from pathlib import Path

from fastapi import APIRouter, Response
from pydantic import BaseModel
from redis import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from api.dependencies import Shared
from store.checks import broker_client, first_line, try_to_write
from store.schema import current_revision, head_revision

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process lives."""

    status: str = "ok"


class Readiness(BaseModel):
    """What the service needs: each part 'ok', or why not."""

    ready: bool
    parts: dict[str, str]


@router.get("/healthz", summary="Whether the process lives")
async def healthz() -> Health:
    return Health()


@router.get(
    "/readyz",
    summary="Whether everything that the service needs is there",
    responses={503: {"model": Readiness, "description": "Something is missing."}},
)
def readyz(response: Response, shared: Shared) -> Readiness:
    parts = {
        **_database(shared.engine),
        "broker": _broker(shared.settings.broker_url),
        "blobs": _blobs(shared.blobs.root),
    }
    ready = set(parts.values()) == {"ok"}
    if not ready:
        response.status_code = 503
    return Readiness(ready=ready, parts=parts)


def _database(engine: Engine) -> dict[str, str]:
    try:
        with engine.connect() as connection:
            return {"database": "ok", "migrations": _migrations(connection)}
    except SQLAlchemyError as error:
        return {"database": first_line(error), "migrations": "unknown"}


def _migrations(connection: Connection) -> str:
    current, head = current_revision(connection), head_revision()
    return "ok" if current == head else f"at revision {current}, not {head}: run python -m store.admin migrate"


def _broker(url: str) -> str:
    try:
        with broker_client(url) as broker:
            broker.ping()
    except (RedisError, OSError, ValueError) as error:
        return first_line(error)
    return "ok"


def _blobs(root: Path) -> str:
    try:
        try_to_write(root)
    except OSError as error:
        return first_line(error)
    return "ok"
