"""`python -m api`: the HTTP service under uvicorn."""

import contextlib
import os
import socket
import sys
from typing import Annotated

import structlog
import typer
import uvicorn

from store import logs

log = structlog.get_logger()

GRACE_SECONDS = 3
"""For requests under way when the service is asked to stop; streams end with it."""


def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    share_port: Annotated[
        bool, typer.Option("--share-port", help="Other processes of this user may listen there too, to share the work.")
    ] = False,
    root_path: Annotated[
        str,
        typer.Option(envvar="LAMBDAHAT_ROOT_PATH", help="Path it is under behind a proxy, such as /lambdahat."),
    ] = "",
    forwarded_allow_ips: Annotated[
        str | None,
        typer.Option(
            envvar="FORWARDED_ALLOW_IPS",
            help="Proxies, by commas, whose X-Forwarded-For and -Proto are believed; by default 127.0.0.1.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve lambdahat's HTTP API and page. Configured by the environment: LAMBDAHAT_DATABASE_URL and friends."""
    logs.write_json()
    os.environ["LAMBDAHAT_ROOT_PATH"] = root_path  # where the service reads its settings
    config = uvicorn.Config(
        "api.app:create_app",
        factory=True,
        log_config=None,
        access_log=False,
        forwarded_allow_ips=forwarded_allow_ips,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    try:
        bound = _bound(host, port, share_port)
    except OSError as error:
        log.error("cannot_listen", host=host, port=port, error=str(error))
        sys.exit(1)
    log.info("listens", host=host, port=bound.getsockname()[1])
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([bound])


def _bound(host: str, port: int, share: bool) -> socket.socket:
    """A socket that listens only when the service can answer: the kernel hands connections to those that listen."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if share:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(address)
    return bound


if __name__ == "__main__":
    typer.run(main)
