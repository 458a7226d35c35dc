"""What all commands share: where the server is, how errors look, how a series is named."""

import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from lambdahat._requests import DEFAULT_URL
from lambdahat.client import Client
from lambdahat.errors import LambdahatError
from lambdahat.objects import Job, Series
from lambdahat.stack import StackError, default_root

# Into a file or a pipe, tables are as wide as they need to be.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 250)
err = Console(stderr=True, highlight=False)

Url = Annotated[str, typer.Option("--url", envvar="LAMBDAHAT_URL", help="The server's address.")]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="LAMBDAHAT_KEY", show_envvar=True, help="An API key; by default the local server's."),
]
SeriesArgument = Annotated[str, typer.Argument(help="Id of a series, or its name (the newest so called).")]
JobArgument = Annotated[str, typer.Argument(help="Id of a job; or a series, for its newest.")]
JobOption = Annotated[str | None, typer.Option("--job", help="Id of a job; by default the newest with results.")]


class Commands(TyperGroup):
    """Commands whose errors are a line and a hint, with exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (LambdahatError, StackError, OSError) as error:
            fail(error)


def fail(error: Exception | str) -> NoReturn:
    """Say what is wrong, in red, and what to do about it; then exit with 1."""
    first, *rest = str(getattr(error, "detail", error)).splitlines() or [type(error).__name__]
    err.print(Text("error: ", style="bold red").append(first, style="red"), soft_wrap=True)
    for line in (*rest, *getattr(error, "fields", ())):
        err.print(Text(f"  {line}"), soft_wrap=True)
    if hint := getattr(error, "hint", ""):
        err.print(Text(f"  {hint}", style="dim"), soft_wrap=True)
    if getattr(error, "status", 0) >= 500:
        err.print(Text(f"  request {getattr(error, 'request_id', None)}", style="dim"), soft_wrap=True)
    raise typer.Exit(1)


def connect(url: str, key: str | None) -> Client:
    """A client; for the local server without a key, with the key that `lambdahat serve` has kept."""
    if key is None and url.rstrip("/") == DEFAULT_URL:
        kept = default_root() / "key"
        key = kept.read_text().strip() if _readable(kept) else None
    if key is None:
        raise LambdahatError(f"no API key for {url}", "set LAMBDAHAT_KEY, or pass --key; `lambdahat serve` prints one")
    return Client(url, key)


def find_series(client: Client, reference: str) -> Series:
    """A series by its id, or the newest with this name. Raises: LambdahatError if there is none."""
    if reference.startswith("ser_"):
        return client.series(reference)
    for series in client.list_series():
        if series.name == reference:
            return series
    raise LambdahatError(f"there is no series called '{reference}'", "the page at / lists them; an id starts with ser_")


def find_job(client: Client, reference: str) -> Job:
    """A job by its id, or the newest of a series."""
    if reference.startswith("job_"):
        return client.job(reference)
    series = find_series(client, reference)
    job = next(client.list_jobs(series), None)
    if job is None:
        raise LambdahatError(f"series '{series.name}' has no job", f"start one: lambdahat run {series.id}")
    return job


def find_checkpoint(client: Client, job: Job, reference: str) -> str:
    """The id of a checkpoint, given as it is or as its step."""
    if not reference.isdecimal():
        return reference
    for checkpoint in client.list_checkpoints(job.series):
        if checkpoint.step == int(reference):
            return checkpoint.id
    raise LambdahatError(f"series '{job.series}' has no checkpoint of step {reference}", "give a step, or an id: ckp_…")


def write_out(text: str) -> None:
    """Print data as it is: no wrapping, no markup."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def _readable(path: Any) -> bool:
    try:
        return path.is_file() and bool(path.read_bytes())
    except OSError:
        return False
