"""A real receiver of webhooks, on loopback: remembers what comes, and answers as a test tells it to."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = {"LAMBDAHAT_WEBHOOK_NETWORKS": "127.0.0.1/32", "LAMBDAHAT_WEBHOOK_HTTP": "true"}
"""What an operator sets for receivers on this machine."""


@dataclass(frozen=True)
class Received:
    """A request. headers: by their names in lower case; address: that it came to."""

    path: str
    headers: dict[str, str]
    body: bytes
    address: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Reply:
    """How to answer. wait: for this, before the first byte."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    wait: Callable[[], object] | None = None


class Receiver:
    """What was received, and how the next are answered: by `replies`, one after the other, then by `reply`."""

    def __init__(self, scheme: str, port: int) -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.received: list[Received] = []
        self.replies: list[Reply] = []
        self.reply = Reply()

    @property
    def ids(self) -> list[str]:
        return [request.id for request in self.received]

    def until(self, number: int, seconds: float = 20.0) -> list[Received]:
        """Wait until so many requests have come."""
        eventually(lambda: len(self.received) >= number, seconds)
        return self.received


def eventually(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it is."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@contextmanager
def receiving(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = receiver.replies.pop(0) if receiver.replies else receiver.reply
            receiver.received.append(Received(self.path, headers, body, self.connection.getsockname()[0]))
            if reply.wait is not None:
                reply.wait()
            try:
                self.send_response(reply.status)
                for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
            except OSError:  # who asked has gone
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Tests need no log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A handshake that was broken off is what a test may want."""

    with Server((host, 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        receiver = Receiver("http" if tls is None else "https", server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
