"""A TCP proxy that is as bad as networks get: it delays, swallows, refuses and resets."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import parse_qs, quote, urlsplit

from store.checks import broker_client

Mode = Literal["pass", "delay", "half_open", "refuse"]

DELAY_SECONDS = 0.2
CHUNK = 65536


class Proxy:
    """From a port of loopback to a server, by TCP or a Unix socket. All methods may be called from any thread."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._mode: Mode = "pass"
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._server = self._call(lambda: asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            for writer in list(self._writers):
                self._abort(writer)
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def being(self, mode: Mode) -> Iterator[None]:
        """delay: every chunk waits; half_open: nothing gets through, and nobody is told; refuse: what is open is reset,
        and nothing new is let in.
        """
        self._mode = mode
        if mode == "refuse":
            self.reset()
        try:
            yield
        finally:
            self._mode = "pass"
            if mode == "half_open":
                self.reset()  # what was swallowed is lost: these connections can't go on

    def reset(self) -> None:
        """End every connection with a RST."""

        async def end() -> None:
            for writer in list(self._writers):
                self._abort(writer)

        self._call(end)

    def _call(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._mode == "refuse":
                return
            open_target = (
                asyncio.open_unix_connection(self._target)
                if isinstance(self._target, str)
                else asyncio.open_connection(*self._target)
            )
            server_reader, server_writer = await open_target
            self._writers.add(server_writer)
            ways = [self._pump(reader, server_writer), self._pump(server_reader, writer)]
            tasks = [asyncio.create_task(way) for way in ways]
            _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            self._abort(server_writer)
        except OSError:
            pass  # the server is away: so are we
        finally:
            self._abort(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self._mode == "half_open":
                    continue
                if self._mode == "delay":
                    await asyncio.sleep(DELAY_SECONDS)
                writer.write(data)
                await writer.drain()
        while self._mode == "half_open":  # not even an end is passed on
            await asyncio.sleep(0.05)

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        sock = writer.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_INET:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


def in_front_of_database(url: str) -> Proxy:
    """Of the database of a URL, which is reached by TCP or a Unix socket."""
    parts = urlsplit(url)
    if folder := parse_qs(parts.query).get("host"):
        return Proxy(f"{folder[0]}/.s.PGSQL.5432")
    return Proxy((parts.hostname or "127.0.0.1", parts.port or 5432))


def database_through(proxy: Proxy, url: str) -> str:
    """The URL of the same database by way of a proxy."""
    parts = urlsplit(url)
    who = parts.netloc.rpartition("@")[0]
    return f"postgresql://{who}@127.0.0.1:{proxy.port}{parts.path}"


def in_front_of_broker(url: str) -> Proxy:
    """Of the broker of a URL, which is reached by TCP or a Unix socket."""
    found = broker_client(url).connection_pool.connection_kwargs
    return Proxy(found["path"] if "path" in found else (found["host"], found["port"]))


def broker_through(proxy: Proxy, url: str) -> str:
    """The URL of the same broker by way of a proxy."""
    password = broker_client(url).connection_pool.connection_kwargs.get("password")
    return f"redis://:{quote(password or '')}@127.0.0.1:{proxy.port}/0"
