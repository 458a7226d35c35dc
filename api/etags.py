"""ETag and If-None-Match (RFC 9110, 8.8.3 and 13.1.2): who has an answer already is not sent it again."""

import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TYPES = ("application/json", "text/csv", "application/vnd.apache.parquet", "image/png", "image/svg+xml")


class ETags:
    """Gives answers to GET the hash of their body, and 304 to those who name it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return await self.app(scope, receive, send)
        start: Message | None = None
        body = b""

        async def tagged(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_whole(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _answer(start, body, Headers(scope=scope).get("If-None-Match", ""), send)

        return await self.app(scope, receive, tagged)


def _is_whole(start: Message) -> bool:
    """An answer that is in memory anyway."""
    headers = Headers(raw=start["headers"])
    return (
        start["status"] == 200
        and "ETag" not in headers
        and "Content-Length" in headers
        and headers.get("Content-Type", "").startswith(_TYPES)
    )


async def _answer(start: Message, body: bytes, known: str, send: Send) -> None:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = MutableHeaders(scope=start)
    headers["ETag"] = etag
    headers["Cache-Control"] = "private, no-cache"
    tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
    if etag in tags or "*" in tags:
        del headers["Content-Length"], headers["Content-Type"]
        start, body = {**start, "status": 304}, b""
    await send(start)
    await send({"type": "http.response.body", "body": body})
