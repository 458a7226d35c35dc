"""`python -m api`: the HTTP service under uvicorn."""

from typing import Annotated

import typer
import uvicorn

from store import logs

GRACE_SECONDS = 3
"""For requests under way when the service is asked to stop; streams end with it."""


def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
) -> None:
    """Serve lambdahat's HTTP API and page. Configured by the environment: LAMBDAHAT_DATABASE_URL and friends."""
    logs.write_json()
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


if __name__ == "__main__":
    typer.run(main)
