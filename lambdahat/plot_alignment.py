"""The picture of an alignment: what series have in common on top, and under it each of them, a row a series."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lambdahat.drawing import TYPE_COLOURS, TYPE_NAMES, drawn, middle_step, set_steps, set_title, write_picture
from lambdahat.errors import LambdahatError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lambdahat.aligned import AlignedRun, AlignedTransition, Alignment, CommonTransition, Spread

ROW = 0.34  # inches
HEIGHT = 0.46  # of a bar, in rows
MAX_NAME = 28
MAX_NUMBERS = 1000
"""Bars that have their numbers over them: each takes a millisecond."""
INK = "#1b1b1b"


class Bar(NamedTuple):
    """A transition on the axis."""

    start: float
    stop: float
    type: Literal["A", "B"] | None
    is_filled: bool


def draw_alignment(alignment: "Alignment", path: str | Path, title: str = "") -> Path:
    """Draw an alignment into a file: PNG, SVG or PDF, by the name's end. Returns the path.

    Bars are transitions, from start to end, filled where they are common, with the number of the common one; a cross
    stands where a common one is missing. On top the medians of the common ones; at the right each run's tempo.
    Raises: LambdahatError if there is no run.
    """
    return write_picture(path, lambda kind: drawn_alignment(alignment, kind, title))


def drawn_alignment(alignment: "Alignment", kind: str, title: str = "") -> bytes:
    """The same, as the bytes of a file of this kind: png, svg or pdf."""
    if not alignment.runs:
        raise LambdahatError("none of these series has stages yet", "run a job on them: lambdahat run SERIES")
    height = 1.5 + ROW * (1 + len(alignment.runs))
    return drawn(7.2, height, lambda figure: _draw_rows(figure, alignment, title), kind)


def _draw_rows(figure: "Figure", alignment: "Alignment", title: str) -> None:
    axes, runs = figure.subplots(), alignment.runs
    _draw_common(axes, alignment)
    if any(run.tempo is not None for run in runs):
        _say_beside(axes, 0, "tempo")
    has_numbers = sum(len(run.transitions) for run in runs) <= MAX_NUMBERS
    for row, run in enumerate(runs, start=1):
        _draw_run(axes, alignment, run, row, has_numbers=has_numbers)
    axes.set_yticks(range(1 + len(runs)), ["in common", *map(_name, runs)], parse_math=False)
    for label, run in zip(axes.get_yticklabels()[1:], runs, strict=True):
        label.set_fontweight("normal" if run.verdict == "ok" else "bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.axhline(0.5, color="#cccccc", linewidth=0.8)
    axes.set_ylim(len(runs) + 0.5, -0.6)
    if alignment.axis == "step":
        transitions = [transition for run in runs for transition in run.transitions]
        set_steps(axes, [transition.to_step for transition in transitions] or [0])
        first = min((transition.from_step for transition in transitions), default=0)
        axes.set_xlim(left=max(0.0, first / 1.5 - 1))
    else:
        axes.invert_xaxis()
        axes.set_xlabel("loss")
    set_title(axes, title or f"{len(alignment.common)} transitions in common", pad=8)
    figure.legend(handles=_legend(alignment), loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _draw_common(axes: "Axes", alignment: "Alignment") -> None:
    """The common sequence, and its shade over all rows."""
    bars: list[Bar] = []
    for number, common in enumerate(alignment.common, start=1):
        start, stop = (end.median for end in _common_ends(common))
        axes.axvspan(start, stop, color=TYPE_COLOURS[common.type], alpha=0.1, linewidth=0, zorder=0)
        bars.append(Bar(start, stop, common.type, is_filled=True))
        _say(axes, 0, _middle(alignment, start, stop), f"{number}")
    _draw_bars(axes, 0, bars)


def _draw_run(axes: "Axes", alignment: "Alignment", run: "AlignedRun", row: int, *, has_numbers: bool) -> None:
    said = {far.transition: far.what for far in run.far} | {one.transition: "reversed" for one in run.reversed}
    numbers = {place: number for number, place in enumerate(run.matched, start=1)}
    bars: list[Bar] = []
    for place, transition in enumerate(run.transitions):
        bars.append(Bar(*_ends(transition), transition.type, is_filled=place in numbers))
        number = numbers.get(place, "") if has_numbers else ""
        if words := f"{number} {said.get(place, '')}".strip():
            _say(axes, row, _middle(alignment, *_ends(transition)), words)
    _draw_bars(axes, row, bars)
    for missing in run.missing:
        start, stop = (end.median for end in _common_ends(alignment.common[missing]))
        middle = _middle(alignment, start, stop, run.tempo or 1.0)
        axes.plot(middle, row, "x", color=INK, markersize=5, markeredgewidth=1.2)
    if run.tempo is not None:
        _say_beside(axes, row, f"{run.tempo:.2f} ×")


def _name(run: "AlignedRun") -> str:
    return shorten(run.series_name, MAX_NAME, placeholder="…") + ("" if run.verdict == "ok" else " (outlier)")


def _draw_bars(axes: "Axes", row: int, bars: Sequence[Bar]) -> None:
    colours = [TYPE_COLOURS[bar.type] for bar in bars]
    axes.broken_barh(
        [(bar.start, bar.stop - bar.start) for bar in bars],
        (row - HEIGHT / 2, HEIGHT),
        facecolors=[colour if bar.is_filled else "white" for bar, colour in zip(bars, colours, strict=True)],
        edgecolors=colours,
        linewidth=1.2,
        zorder=1.5,
    )


def _say(axes: "Axes", row: int, middle: float, words: str) -> None:
    """Words over a bar."""
    above: dict[str, Any] = {"xytext": (0, 0.5), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    axes.annotate(words, (middle, row - HEIGHT / 2), **above, fontsize=6.5).set_in_layout(False)


def _say_beside(axes: "Axes", row: int, words: str) -> None:
    """At the right of a row."""
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "color": "#666666"}
    axes.annotate(words, (1.02, row), **beside, fontsize=7)


def _middle(alignment: "Alignment", start: float, stop: float, tempo: float = 1.0) -> float:
    """Of two places on the axis, for a run that takes so many times as long."""
    if alignment.axis == "loss":
        return (start + stop) / 2
    return tempo * (middle_step(start, stop) + 1) - 1


def _common_ends(common: "CommonTransition") -> tuple["Spread", "Spread"]:
    """On the axis, which is the loss where there are losses."""
    return (common.from_loss or common.from_step), (common.to_loss or common.to_step)


def _ends(transition: "AlignedTransition") -> tuple[float, float]:
    """The same of a run's own."""
    if transition.from_loss is None or transition.to_loss is None:
        return transition.from_step, transition.to_step
    return transition.from_loss, transition.to_loss


def _legend(alignment: "Alignment") -> list[Patch | Line2D]:
    types = {transition.type for run in alignment.runs for transition in run.transitions}
    handles: list[Patch | Line2D] = [
        Patch(color=colour, label=TYPE_NAMES[kind]) for kind, colour in TYPE_COLOURS.items() if kind in types
    ]
    if any(run.extra for run in alignment.runs):
        handles.append(Patch(facecolor="white", edgecolor=INK, label="not in common"))
    if any(run.missing for run in alignment.runs):
        handles.append(Line2D([], [], marker="x", linestyle="", color=INK, markersize=5, label="missing"))
    return handles
