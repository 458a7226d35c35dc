"""/healthz: the process lives. /readyz: what it needs is there. Both without a key."""

import os
import tempfile

from fastapi import APIRouter, Response
from pydantic import BaseModel
from redis import Redis, RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from api.dependencies import Shared
from store.blobs import BlobStore
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
def healthz() -> Health:
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
        "blobs": _blobs(shared.blobs),
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
        return {"database": _first_line(error), "migrations": "unknown"}


def _migrations(connection: Connection) -> str:
    current, head = current_revision(connection), head_revision()
    return "ok" if current == head else f"at revision {current}, not {head}: run python -m store.admin migrate"


def _broker(url: str) -> str:
    # kombu's spelling of a socket, and redis-py's
    spelled = url.replace("redis+socket://", "unix://").split("?")[0]
    try:
        with Redis.from_url(spelled, socket_timeout=2, socket_connect_timeout=2) as broker:
            broker.ping()
    except (RedisError, OSError, ValueError) as error:
        return _first_line(error)
    return "ok"


def _blobs(blobs: BlobStore) -> str:
    try:
        blobs.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=blobs.root) as file:
            os.fsync(file.fileno())
    except OSError as error:
        return _first_line(error)
    return "ok"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
