"""Every error as `application/problem+json` (RFC 9457), rendered in one place."""

import errno
import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from llc.errors import InputError
from store.database import AWAY
from store.errors import (
    ConflictError,
    DiskFullError,
    NotFoundError,
    QuotaError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
)

log = structlog.get_logger()

MAX_ERRORS = 20
MAX_CHARACTERS = 500


class ForbiddenError(InputError):
    """The key may not do this."""

    def __init__(self, scope: str) -> None:
        super().__init__("forbidden", f"the API key lacks the scope '{scope}'", "use a key that has it")


class FieldError(BaseModel):
    """One thing that is wrong in a request."""

    location: str = Field(examples=["body.measures.llc.num_chains"])
    message: str = Field(examples=["Input should be greater than or equal to 2"])


class Problem(BaseModel):
    """What is wrong, and what to do about it."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["the checkpoint has no parameter 'layers.0.bias', of shape [128]"])
    code: str = Field(description="Stable, for programs.", examples=["missing_parameter"])
    hint: str = Field(examples=["rename its tensors to the model's layout"])
    errors: list[FieldError] | None = None
    request_id: str = Field(description="Name it when you ask for help.")


PROBLEM: Mapping[str, Any] = {
    "description": "What is wrong, and what to do about it.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
RESPONSES: dict[int | str, dict[str, Any]] = {"4XX": dict(PROBLEM), "5XX": dict(PROBLEM)}
"""For every router: what its endpoints answer when something is wrong."""

_STATUSES: tuple[tuple[type[InputError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (TooLargeError, 413),
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (QuotaError, 403),
    (RateLimitedError, 429),
    (DiskFullError, 507),
    (InputError, 422),
)

HINTS: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "the body is to be JSON in UTF-8"),
    404: ("not_found", "check the address; GET /openapi.json lists them all"),
    405: ("method_not_allowed", "GET /openapi.json lists what each address takes"),
    408: ("request_timeout", "send it again, in one go"),
    413: ("too_large", "large things go to PUT /v1/blobs/{sha256}"),
}


def render(
    status: int,
    code: str,
    detail: str,
    hint: str,
    request_id: str,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        hint=hint,
        errors=errors,
        request_id=request_id,
    )
    # ASCII: what a client sent may hold half a surrogate pair, which UTF-8 can't say.
    content = json.dumps(problem.model_dump(exclude_none=True))
    return Response(content, status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Render every error of the app's endpoints. (What nobody expected is `api.middleware`'s.)"""
    app.exception_handler(InputError)(_input_error)
    app.exception_handler(RequestValidationError)(_invalid_request)
    app.exception_handler(HTTPException)(_http_exception)
    for error in AWAY:
        app.exception_handler(error)(_database_error)
    app.exception_handler(ClientDisconnect)(_client_left)
    app.exception_handler(OSError)(_os_error)


async def _input_error(request: Request, error: InputError) -> Response:
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if isinstance(error, RateLimitedError):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    return render(status, error.code, error.detail, error.hint, request.state.request_id, headers=headers)


async def _invalid_request(request: Request, error: RequestValidationError) -> Response:
    errors = [
        FieldError(location=_location(found["loc"], error.body)[:MAX_CHARACTERS], message=found["msg"][:MAX_CHARACTERS])
        for found in error.errors()[:MAX_ERRORS]
    ]
    detail = "; ".join(f"{found.location}: {found.message}" for found in errors[:3])
    hint = "see errors[] for each field, and /docs for what this request takes"
    return render(422, "invalid_request", detail, hint, request.state.request_id, errors)


def _location(parts: Sequence[str | int], body: Any) -> str:
    """Where in the request, as its sender knows it: without the alternatives' names that pydantic puts between."""
    kept, node = [str(parts[0])], body
    for i, part in enumerate(parts[1:], start=2):
        missing = isinstance(node, dict) and i == len(parts)
        inside = part in node if isinstance(node, dict) else isinstance(part, int)
        if inside or missing or parts[0] != "body":
            kept.append(str(part))
        if isinstance(node, dict) and inside:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part] if part < len(node) else None
    return ".".join(kept)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    code, hint = HINTS.get(error.status_code, ("http_error", ""))
    return render(error.status_code, code, error.detail, hint, request.state.request_id, headers=error.headers)


async def _database_error(request: Request, error: Exception) -> Response:
    log.error("database_unavailable", reason=str(error)[:MAX_CHARACTERS])
    detail, hint = "the database can't be reached or is overloaded", "try again in a few seconds"
    return render(503, "unavailable", detail, hint, request.state.request_id, headers={"Retry-After": "2"})


async def _os_error(request: Request, error: Exception) -> Response:
    """The disk of the blobs is full; anything else nobody expected."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        log.error("disk_full", reason=str(error))
        return await _input_error(request, DiskFullError())
    raise error


async def _client_left(request: Request, _error: ClientDisconnect) -> Response:
    """Nobody will read it, but the log shows a request cut short rather than a crash."""
    return render(400, "bad_request", "the request was cut short", "send it again", request.state.request_id)
