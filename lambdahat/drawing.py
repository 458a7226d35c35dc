"""What all pictures share: colours, style, the axis of steps, and the files they go into."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from threading import Lock
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.markers import TICKDOWN
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lambdahat.errors import LambdahatError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by the colour-blind too. The page at / uses the same.
TYPE_COLOURS = {"A": "#d55e00", "B": "#0072b2", None: "#7f7f7f"}
TYPE_NAMES = {"A": "type A: loss falls, LLC rises", "B": "type B: LLC falls, loss nearly flat", None: "neither A nor B"}

MAX_TITLE = 80

FILES: "dict[str, dict[str, Any]]" = {"svg": {"metadata": {"Date": None}}, "png": {"pil_kwargs": {"compress_level": 1}}}
"""The same picture is the same bytes; a PNG is a fifth larger than it could be, and packed in half of the time."""

_ONE_AT_A_TIME = Lock()
"""A style is set for all threads."""

STYLE: "dict[Any, Any]" = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "svg.fonttype": "none",
    "svg.hashsalt": "lambdahat",
}


def check_picture(path: str | Path) -> Path:
    """The path of a picture. Raises: LambdahatError if its name is of no kind that can be drawn."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise LambdahatError(f"can't draw into '{path.name}'", "give it a name that ends in .png, .svg or .pdf")
    return path


def drawn(width: float, height: float, draw: Callable[[Figure], None], kind: str) -> bytes:
    """What `draw` puts on a figure of so many inches, as the bytes of a file of this kind: png, svg or pdf. One at a
    time, whatever thread asks.
    """
    content = BytesIO()
    with _ONE_AT_A_TIME, mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(content, format=kind, dpi=200, **FILES.get(kind, {}))
    return content.getvalue()


def write_picture(path: str | Path, draw: Callable[[str], bytes]) -> Path:
    """The bytes of a picture of the kind that the path's name says, into that file. Returns the path."""
    path = check_picture(path)
    content = draw(path.suffix.lower().removeprefix("."))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def set_title(axes: "Axes", title: str, pad: float) -> None:
    """A title above, of any text."""
    words = shorten(title, MAX_TITLE, placeholder="…")
    axes.set_title(words, loc="left", fontsize=11, fontweight="bold", pad=pad, parse_math=False)


def middle_step(start: float, stop: float) -> float:
    """Half way between two steps, as the axis of steps shows them."""
    return float(np.expm1((np.log1p(start) + np.log1p(stop)) / 2))


def set_steps(axes: "Axes", steps: Sequence[int]) -> None:
    """log(step + 1), so that step 0 has a place."""
    axes.set_xscale("function", functions=(np.log1p, np.expm1))
    last = max(steps)
    axes.set_xlim(0 if last else -0.5, max(last, 0.5) * 1.04 if last > 10 else last + 0.5)
    decades = [10**k for k in range(len(str(last))) if 10**k <= last]
    axes.xaxis.set_major_locator(FixedLocator([0, *decades]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}".replace(",", "\u2009")))
    axes.xaxis.set_minor_locator(NullLocator())
    minor = [m * decade for decade in decades for m in range(2, 10) if m * decade <= last]
    for panel in axes.get_shared_x_axes().get_siblings(axes):
        _mark_steps(panel, minor)
    axes.set_xlabel("training step")


def _mark_steps(axes: "Axes", steps: Sequence[int]) -> None:
    """Minor ticks, in one line of markers: as ticks, each with a label that it hasn't, they took a fifth of a picture's
    time.
    """
    style = mpl.rcParams
    ink: dict[str, Any] = {"markersize": style["xtick.minor.size"], "markeredgewidth": style["xtick.minor.width"]}
    ink |= {"marker": TICKDOWN, "color": style["xtick.color"]}
    foot = axes.get_xaxis_transform()
    axes.plot(steps, np.zeros(len(steps)), linestyle="", transform=foot, clip_on=False, **ink)
