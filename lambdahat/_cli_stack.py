"""The commands that look after an installation."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lambdahat._cli_common import Key, out, write_out

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
