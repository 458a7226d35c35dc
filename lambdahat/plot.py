"""The picture of a series: the LLC and what goes with it over steps, one panel under another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lambdahat.drawing import TYPE_COLOURS, TYPE_NAMES, drawn, middle_step, set_steps, set_title, write_picture
from lambdahat.errors import LambdahatError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lambdahat.objects import Curve, CurveQuantity, Stage

MAX_METRIC_LABEL = 18
MAX_DRAWN = 1e100


@dataclass(frozen=True)
class Panel:
    """Quantities that share a vertical axis. log: wherever all values are positive."""

    label: str
    lines: tuple[tuple[str, str, str], ...]
    """(quantity, name in the legend, colour)."""
    height: float
    log: bool


PANELS = (
    Panel("local learning\ncoefficient  λ̂", (("llc", "λ̂", "#1b1b1b"),), height=2.2, log=False),
    # Linear: a transition's type is a matter of how much the loss changes, not of its factors.
    Panel("loss", (("loss", "loss", "#1b1b1b"),), height=1.3, log=False),
    Panel(
        "Hessian",
        (("hessian_trace", "trace", "#1b1b1b"), ("hessian_max_eigenvalue", "largest eigenvalue", "#7a5195")),
        height=1.2,
        log=True,
    ),
    Panel(
        "near-zero share\nof spectrum",
        (("hessian_near_zero_share", "near-zero share", "#1b1b1b"),),
        height=1.0,
        log=False,
    ),
)


def draw(curve: "Curve", transitions: "Sequence[Stage]", path: str | Path, title: str = "") -> Path:
    """Draw a curve with its transitions into a file: PNG, SVG or PDF, by the name's end. Returns the path.

    Bands are 95 % intervals (± 1.96 standard errors), bars on top the 90 % intervals of transitions' ends; hollow
    points are those whose verdict is not 'ok'; a cross at the foot marks a step without a finite number. Metrics that
    the curve was asked for have panels of their own.
    Raises: LambdahatError if there is nothing to draw.
    """
    return write_picture(path, lambda kind: drawn_curve(curve, transitions, kind, title))


def drawn_curve(curve: "Curve", transitions: "Sequence[Stage]", kind: str, title: str = "") -> bytes:
    """The same, as the bytes of a file of this kind: png, svg or pdf."""
    panels = [panel for panel in PANELS if any(curve.column(quantity) for quantity, _, _ in panel.lines)]
    panels += [_metric_panel(name) for name in sorted({name for point in curve.points for name in point.metrics})]
    if not panels:
        raise LambdahatError(f"series '{curve.series}' has no curve yet", "run a job on it: lambdahat run SERIES")
    height = 1.1 + 1.15 * sum(panel.height for panel in panels)
    return drawn(7.2, height, lambda figure: _draw_panels(figure, panels, curve, transitions, title), kind)


def _draw_panels(
    figure: "Figure", panels: Sequence[Panel], curve: "Curve", transitions: "Sequence[Stage]", title: str
) -> None:
    heights = [panel.height for panel in panels]
    column = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, panel in zip(column, panels, strict=True):
        _draw_panel(axes, panel, curve)
        _shade(axes, transitions)
    _label(column[0], transitions)
    set_steps(column[-1], [point.step for point in curve.points])
    figure.align_ylabels(list(column))
    if title:
        set_title(column[0], title, pad=20)
    if handles := _legend(curve, transitions):
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _metric_panel(name: str) -> Panel:
    """Of what training kept."""
    label = fill(name.replace("_", " "), MAX_METRIC_LABEL, max_lines=3, placeholder="…")
    return Panel(label, ((f"metrics.{name}", name, "#1b1b1b"),), height=1.0, log=False)


def _draw_panel(axes: "Axes", panel: Panel, curve: "Curve") -> None:
    lowest = np.inf
    for quantity, name, colour in panel.lines:
        measured = curve.column(quantity)
        missing = [step for step, q in measured if not _can_be_drawn(q)]
        at_the_foot = axes.get_xaxis_transform()
        axes.plot(missing, np.full(len(missing), 0.04), "x", color=colour, markersize=4.5, transform=at_the_foot)
        column = [(step, q) for step, q in measured if _can_be_drawn(q)]
        if not column:
            continue
        steps, value, std_error, ok = _arrays(column)
        lowest = min(lowest, value.min())
        axes.fill_between(
            steps, value - 1.96 * std_error, value + 1.96 * std_error, color=colour, alpha=0.18, linewidth=0
        )
        axes.plot(steps, value, color=colour, linewidth=1.3, label=name)
        axes.plot(steps[ok], value[ok], "o", color=colour, markersize=3.2)
        axes.plot(steps[~ok], value[~ok], "o", color=colour, markersize=4, markerfacecolor="white", markeredgewidth=0.9)
    axes.set_ylabel(panel.label, parse_math=False)
    if panel.log and lowest > 0:
        axes.set_yscale("log")
    elif lowest < 0:
        axes.axhline(0, color="#999999", linewidth=0.8)
    if len(panel.lines) > 1:
        axes.legend(frameon=False, fontsize=8, loc="best")


def _can_be_drawn(found: "CurveQuantity") -> bool:
    """Matplotlib's axes overflow beyond."""
    return found.value is not None and abs(found.value) < MAX_DRAWN and (found.std_error or 0.0) < MAX_DRAWN


def _arrays(column: "Sequence[tuple[int, CurveQuantity]]") -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """steps, values, standard errors (0 where unknown), whether the verdict is 'ok'."""
    return (
        np.array([step for step, _ in column], dtype=float),
        np.array([q.value for _, q in column], dtype=float),
        np.array([q.std_error or 0.0 for _, q in column]),
        np.array([q.verdict == "ok" for _, q in column]),
    )


def _shade(axes: "Axes", transitions: "Sequence[Stage]") -> None:
    for transition in transitions:
        colour = TYPE_COLOURS[transition.type]
        axes.axvspan(transition.from_step, transition.to_step, color=colour, alpha=0.13, linewidth=0, zorder=0)


def _label(axes: "Axes", transitions: "Sequence[Stage]") -> None:
    """The type of every transition, over its shade, and the 90 % intervals of its ends."""
    for transition in transitions:
        for low, high in (
            (transition.from_step_low, transition.from_step_high),
            (transition.to_step_low, transition.to_step_high),
        ):
            if low is not None and high is not None:
                line = {"color": TYPE_COLOURS[transition.type], "linewidth": 2.2, "solid_capstyle": "butt"}
                axes.plot([low, high], [1, 1], transform=axes.get_xaxis_transform(), clip_on=False, **line)
        axes.annotate(
            transition.type or "·",
            (middle_step(transition.from_step, transition.to_step), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=10,
            fontweight="bold",
            color=TYPE_COLOURS[transition.type],
        )


def _legend(curve: "Curve", transitions: "Sequence[Stage]") -> list[Patch | Line2D]:
    types = {transition.type for transition in transitions}
    handles: list[Patch | Line2D] = [
        Patch(color=colour, alpha=0.25, linewidth=0, label=TYPE_NAMES[kind])
        for kind, colour in TYPE_COLOURS.items()
        if kind in types
    ]
    if any(transition.from_step_low is not None for transition in transitions):
        handles.append(Line2D([], [], color="#7f7f7f", linewidth=2.2, label="90 % intervals of its ends"))
    everything = [q for point in curve.points for q in point.quantities.values()]
    ink: dict[str, Any] = {"linestyle": "", "color": "#1b1b1b"}
    if any(q.verdict != "ok" and q.value is not None for q in everything):
        hollow = Line2D([], [], marker="o", markerfacecolor="white", markersize=4, label="verdict not ok", **ink)
        handles.append(hollow)
    if any(q.value is None for q in everything):
        handles.append(Line2D([], [], marker="x", markersize=4.5, label="no finite number", **ink))
    return handles
