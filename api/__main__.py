"""`python -m api`: the HTTP service under uvicorn."""

import os
from typing import Annotated

import typer
import uvicorn

from store import logs

GRACE_SECONDS = 3
"""For requests under way when the service is asked to stop; streams end with it."""


def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
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
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        forwarded_allow_ips=forwarded_allow_ips,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


if __name__ == "__main__":
    typer.run(main)
