"""What surrounds every request: its id, a line in the log, the limit of its body, and the end of what nobody caught."""

import asyncio
import math
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
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Answers with secrets or results are no one else's; those that may be kept say so.
    "Cache-Control": "no-store",
}
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
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
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
    """Refuses bodies of more than 1 MB, except where files are uploaded, which has limits of its own, and those that
    stop coming.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = math.inf if _is_upload(scope) else MAX_JSON_BYTES
        declared = int(Headers(scope=scope).get("Content-Length", "0"))
        received, is_whole = 0, False
        too_large = HTTPException(413, f"the body has more than {MAX_JSON_BYTES} bytes")

        async def limited() -> Message:
            nonlocal received, is_whole
            if declared > most:
                raise too_large
            try:
                async with asyncio.timeout(None if is_whole else self._seconds):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"nothing of the body came for {self._seconds:g} s") from None
            received += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if received > most:
                raise too_large
            return message

        return await self.app(scope, limited, send)


def _is_upload(scope: Scope) -> bool:
    return scope["method"] in ("PUT", "PATCH") and path_of(scope).startswith(("/v1/blobs/", "/v1/uploads/"))
