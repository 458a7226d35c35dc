"""A small reverse proxy: one path of it is the service, with that path taken off or left on."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.types import Receive, Scope, Send

PATH = "/lambdahat"


@contextmanager
def reverse_proxy(upstream: str, *, strip: bool) -> Iterator[str]:
    """The URL of the service behind it."""

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        assert scope["path"].startswith(PATH), scope["path"]
        path = (scope["path"].removeprefix(PATH) or "/") if strip else scope["path"]
        url = httpx.URL(upstream + path, query=scope["query_string"])
        headers = [*scope["headers"], (b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"203.0.113.7")]
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream(scope["method"], url, headers=headers, content=body) as answer,
        ):
            await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.headers.raw})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(proxy, log_config=None, access_log=False, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
