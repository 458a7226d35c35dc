"""Where the API listens."""

import socket

from lambdahat.stack.errors import StackError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


def pick_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. Errors: StackError when it can't be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: past connections linger
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        raise StackError(
            f"Can't listen on {host}, port {port}: {error}.", "Choose another port with --port; 0 picks a free one."
        ) from error


def local_url(host: str, port: int) -> str:
    """The URL that reaches a server listening on `host` from this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
