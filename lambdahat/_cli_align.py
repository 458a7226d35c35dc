"""`lambdahat align`: what several series have in common."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lambdahat._cli_common import Key, Url, connect, find_series, out
from lambdahat._cli_watch import TYPE_STYLES
from lambdahat._requests import DEFAULT_URL
from lambdahat.aligned import AlignedRun, Alignment, CommonTransition, Spread
from lambdahat.errors import LambdahatError
from lambdahat.numbers import MISSING, with_error


class Axis(StrEnum):
    """Where transitions are compared."""

    step = "step"
    loss = "loss"


def align(
    series: Annotated[
        list[str] | None, typer.Argument(help="Ids of series, or their names (the newest so called).")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="name:value, and the series that have it; may be repeated: all of them.")
    ] = None,
    axis: Annotated[Axis, typer.Option(help="Compare by log(step + 1), or by the loss.")] = Axis.step,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw it, too: .png, .svg or .pdf.", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show which transitions several series have in common, and which series are outliers."""
    tags = dict(_tag(one) for one in tag or ())
    with connect(url, key) as client:
        found = client.align([find_series(client, one) for one in series or ()], tags, axis.value)
    _show_common(found)
    _show_runs(found)
    for words, missing in (("no stages", found.without_stages), ("no losses", found.without_loss)):
        if missing:
            out.print(f"\n[dim]{words} of {', '.join(missing)}[/]", soft_wrap=True)
    if output is not None:
        from lambdahat.plot_alignment import draw_alignment

        out.print(f"\n{draw_alignment(found, output, ', '.join(tag or ()))}", soft_wrap=True)


def _tag(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise LambdahatError(f"'{text}' is no tag with its value", "for example: --tag optimizer:adamw")
    return name, value


def _show_common(found: Alignment) -> None:
    """A row a common transition."""
    if not found.common:
        out.print(f"[dim]no transition is common to half of {len(found.runs)} runs[/]")
        return
    ends = ["from step", "to step"] + (["from loss", "to loss"] if found.axis == "loss" else [])
    table = _table("", "type", "runs", *ends, "Δloss", "Δλ̂")
    for number, one in enumerate(found.common, start=1):
        loss = one.delta_loss
        table.add_row(
            f"{number}",
            Text(one.type or one.direction, style=TYPE_STYLES[one.type]),
            f"{one.support}/{len(found.runs)}",
            *(_spread(spread) for spread in _ends(one)),
            MISSING if loss is None else with_error(loss.value, loss.std_error),
            with_error(one.delta_llc.value, one.delta_llc.std_error),
        )
    out.print("[bold]in common[/]  [dim]median, and what 90 % of the runs lie between[/]")
    out.print(table)


def _ends(common: CommonTransition) -> list[Spread]:
    ends = (common.from_step, common.to_step, common.from_loss, common.to_loss)
    return [end for end in ends if end is not None]


def _show_runs(found: Alignment) -> None:
    """A row a run, those that differ most first; under them what is unusual of the outliers."""
    if not found.runs:
        return
    table = _table("series", "transitions", "tempo", "differences", "verdict")
    for run in sorted(found.runs, key=lambda run: -run.differences):
        style = "" if run.verdict == "ok" else "yellow"
        tempo = MISSING if run.tempo is None else f"{run.tempo:.2f} ×"
        table.add_row(Text(run.series_name), _matches(run), tempo, f"{run.differences:.1f}", run.verdict, style=style)
    out.print("\n[bold]runs[/]")
    out.print(table)
    for run in found.outliers:
        out.print(Text(f"\n{run.series_name}", style="yellow").append(f"  {run.series}", style="dim"), soft_wrap=True)
        for reason in run.reasons:
            out.print(Text(f"- {reason}"), soft_wrap=True)


def _matches(run: AlignedRun) -> str:
    """`1 2 – 4 +1`: the common transitions that it has, and how many others."""
    own = [MISSING if match is None else f"{number}" for number, match in enumerate(run.matched, start=1)]
    return " ".join([*own, *([f"+{len(run.extra)}"] if run.extra else [])])


def _spread(spread: Spread) -> str:
    median, low, high = (_number(value) for value in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median} ({low}–{high})"


def _number(value: float) -> str:
    """Steps in full, losses with four digits."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table
