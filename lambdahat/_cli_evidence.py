"""`lambdahat evidence`: which curves change at which transition."""

from rich.table import Table
from rich.text import Text

from lambdahat._cli_common import JobOption, Key, SeriesArgument, Url, connect, find_series, out
from lambdahat._cli_watch import HEADINGS, TYPE_STYLES
from lambdahat._requests import DEFAULT_URL
from lambdahat.numbers import MISSING, with_error
from lambdahat.objects import Change, Evidence


def evidence(series: SeriesArgument, job: JobOption = None, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show which measures, and which metrics posted with the checkpoints, change at which transition."""
    with connect(url, key) as client:
        found = client.evidence(find_series(client, series), job)
    if not found:
        out.print("[dim]no transitions[/]")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for one in found:
        table.add_column(_heading(one), justify="right")
    for changes in zip(*(one.curves for one in found), strict=True):
        table.add_row(_name(changes[0]), *(_cell(change) for change in changes))
    out.print(table)
    out.print("[dim]the change from before to after; faint: no more than noise, or than a small share of the range[/]")


def _heading(one: Evidence) -> Text:
    transition = one.transition
    text = Text(transition.type or MISSING, style=TYPE_STYLES[transition.type])
    return text.append(f" {transition.from_step}–{transition.to_step}", style="bold")


def _name(change: Change) -> str:
    return HEADINGS.get(change.name, change.name) if change.source == "measure" else f"{change.name} (metric)"


def _cell(change: Change) -> Text:
    number = with_error(change.change.value, change.change.std_error)
    if change.share is None:
        return Text(MISSING)
    return Text(f"{number}  {change.share:.0%}", style="" if change.changes else "dim")
