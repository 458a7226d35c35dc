"""What surrounds every request: its id, a line in the log, the limit of its body, and the end of what nobody caught."""

import re
import time
import uuid

import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import REQUESTS
from api.problems import render
from api.root_path import path_of

log = structlog.get_logger()

MAX_JSON_BYTES = 1_000_000
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Gives each request an id (the caller's X-Request-Id, or a new one), logs it, and answers 500 where it crashed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        start, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception:
                log.exception("internal_error", method=scope["method"], path=scope["path"])
                if status:
                    raise
                hint = "this is a fault of the server; tell its operator the request_id"
                problem = render(500, "internal_error", "something went wrong in the server", hint, request_id)
                await problem(scope, receive, send_with_id)
            finally:
                seconds = round(time.perf_counter() - start, 4)
                route = getattr(scope.get("route"), "path", "none")
                REQUESTS.labels(scope["method"], route, str(status)).observe(seconds)
                log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=seconds)
        return None


class BodyLimit:
    """Refuses bodies of more than 1 MB, except where blobs are uploaded, which has a limit of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or path_of(scope).startswith("/v1/blobs/"):
            return await self.app(scope, receive, send)
        declared = int(Headers(scope=scope).get("Content-Length", "0"))
        received = 0
        too_large = HTTPException(413, f"the body has more than {MAX_JSON_BYTES} bytes")

        async def limited() -> Message:
            nonlocal received
            if declared > MAX_JSON_BYTES:
                raise too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_JSON_BYTES:
                raise too_large
            return message

        return await self.app(scope, limited, send)
