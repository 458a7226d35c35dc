"""One POST to an address of a tenant's choosing: to allowed addresses only, within a time, and reading little.

httpcore itself, as httpx has no place to say where to connect to. It follows no redirects, keeps no cookies, asks no
proxy of the environment and unpacks nothing.
"""

import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore

from llc.errors import InputError
from store.addresses import Network, check_url, resolve

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
MAX_RESPONSE_BYTES = 64 * 1024
KEPT_BYTES = 500


class PostError(Exception):
    """There was no answer; the text says why."""


@dataclass(frozen=True)
class Answer:
    """Of a receiver. headers: by their names in lower case; text: how its body begins."""

    status: int
    headers: Mapping[str, str]
    text: str


def post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    networks: Sequence[Network],
    allow_http: bool,
    tls: ssl.SSLContext,
) -> Answer:
    """Send it once. Raises: PostError."""
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        parts = check_url(url, allow_http)
        fields = [("Host", parts.netloc), ("Content-Type", "application/json"), *headers.items()]
        timeout = {"connect": CONNECT_SECONDS, "read": TOTAL_SECONDS, "write": TOTAL_SECONDS, "pool": TOTAL_SECONDS}
        with (
            httpcore.ConnectionPool(tls, network_backend=_Pinned(networks, deadline)) as pool,
            pool.stream("POST", url, headers=fields, content=body, extensions={"timeout": timeout}) as response,
        ):
            text = _beginning(response.iter_stream())
            answered = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(response.status, answered, text)
    except InputError as error:
        raise PostError(error.detail) from None
    except httpcore.TimeoutException:
        raise PostError(f"no answer in time: {CONNECT_SECONDS:g} s to connect, {TOTAL_SECONDS:g} s in all") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise PostError(str(error) or type(error).__name__) from None


def _beginning(chunks: Iterable[bytes]) -> str:
    """The first of a body, of which no more is read than is allowed."""
    kept, length = b"", 0
    for chunk in chunks:
        length += len(chunk)
        kept += chunk[: KEPT_BYTES - len(kept)]
        if length > MAX_RESPONSE_BYTES:
            break
    return kept.decode(errors="replace")


class _Pinned(httpcore.NetworkBackend):
    """Connects to the addresses that were found allowed, and to no other."""

    def __init__(self, networks: Sequence[Network], deadline: float) -> None:
        self._networks, self._deadline = networks, deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """To the first address that answers."""
        refusal: Exception = httpcore.ConnectTimeout()
        until = time.monotonic() + (timeout or CONNECT_SECONDS)
        for address in resolve(host, port, self._networks):
            try:
                left = _left(min(until, self._deadline), httpcore.ConnectTimeout)
                stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
                return _Bounded(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                refusal = error
        raise refusal


class _Bounded(httpcore.NetworkStream):
    """A stream on which all waiting together ends at a time: a byte now and then keeps nobody waiting for ever."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, httpcore.ReadTimeout, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, httpcore.WriteTimeout, timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, httpcore.ConnectTimeout, timeout)
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float, late: type[httpcore.TimeoutException], timeout: float | None = None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise late
    return left if timeout is None else min(left, timeout)
