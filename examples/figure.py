"""Run the examples with three seeds each, or draw and tabulate what such runs have left.

    python examples/figure.py --run --out docs      # run them all first (`make runs`)
    python examples/figure.py --out docs            # draw again from the folder `demo/runs`

Writes a picture for each run, and the tables of docs/runs.md between its marks.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from lambdahat.drawing import STYLE, TYPE_COLOURS, TYPE_NAMES, middle_step
from lambdahat.objects import Curve, Stage

HERE = Path(__file__).parent
INK, EXACT, COUNT = "#1b1b1b", "#009e73", "#0072b2"


@dataclass(frozen=True)
class Picture:
    """Of an example: its file, which seeds, where the steps begin, the λ̂ of the picture's frame, None where all points
    fit, and which posted metric says how much is learned.
    """

    example: str
    file: str
    first_step: int = 0
    frame: tuple[float, float] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    metric: str | None = None


PICTURES = (
    Picture("deep_linear", "deep_linear.png", first_step=4000, frame=(-2.5, 22.5), metric="rank"),
    Picture("superposition", "superposition.png", seeds=(0, 3, 23), metric="corners"),
    Picture("modular_addition", "modular_addition_seeds.png"),
)


@dataclass(frozen=True)
class Found:
    """What one run left behind."""

    seed: int
    curve: Curve
    transitions: Sequence[Stage]
    plateaus: Sequence[Mapping[str, Any]]

    @staticmethod
    def read(folder: Path, example: str, seed: int) -> "Found":
        """From its folder."""
        found = json.loads((folder / f"{example}.json").read_text())
        plateaus = folder / f"{example}_plateaus.json"
        return Found(
            seed,
            Curve.model_validate(found["curve"]),
            [Stage.model_validate(transition) for transition in found["transitions"]],
            json.loads(plateaus.read_text()) if plateaus.exists() else [],
        )


def main() -> None:
    """Run, draw, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run the examples first, each with a stack of its own")
    parser.add_argument("--runs", type=Path, default=Path("demo/runs"), help="folder of the runs' numbers")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pictures and of runs.md")
    parser.add_argument("--only", choices=[picture.example for picture in PICTURES], help="one of the examples")
    arguments = parser.parse_args()
    for picture in PICTURES:
        if arguments.only in (None, picture.example):
            folders = [arguments.runs / picture.example / f"seed{seed}" for seed in picture.seeds]
            if arguments.run:
                for seed, folder in zip(picture.seeds, folders, strict=True):
                    run(picture.example, seed, folder)
            found = [
                Found.read(folder, picture.example, seed) for seed, folder in zip(picture.seeds, folders, strict=True)
            ]
            draw(picture, found, arguments.out / picture.file)
            insert(arguments.out / "runs.md", picture.example, tables(found))


def run(example: str, seed: int, folder: Path) -> None:
    """One run, in a process of its own."""
    start = time.monotonic()
    script = [sys.executable, str(HERE / f"{example}.py"), "--serve", "--out", str(folder), "--seed", str(seed)]
    subprocess.run(script, check=True)
    print(f"{example}, seed {seed}: {time.monotonic() - start:.0f} s", flush=True)


# Pictures -------------------------------------------------------------------------------------------------------------


def draw(picture: Picture, found: Sequence[Found], path: Path) -> None:
    """A column for each seed: λ̂ above, the loss below."""
    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(
            2, len(found), figsize=(11, 5), height_ratios=(2.2, 1), sharex=True, sharey="row", layout="constrained"
        )
        for one, (above, below) in zip(found, panels.T, strict=True):
            above.set_title(f"seed {one.seed}", loc="left", fontsize=10, fontweight="bold", pad=18)
            draw_curve(above, one.curve, "llc", picture.frame)
            draw_curve(below, one.curve, "loss", None)
            draw_plateaus(above, one.plateaus)
            if picture.metric:
                draw_count(below, one.curve, picture.metric, is_last=one is found[-1])
            shade(above, below, one.transitions)
            set_steps(below, picture.first_step, one.curve.points[-1].step)
        if picture.frame:
            panels[0, 0].set_ylim(*picture.frame)
        else:
            panels[0, 0].margins(y=0.09)
        panels[0, 0].set_ylabel("local learning\ncoefficient  λ̂")
        panels[1, 0].set_ylabel("loss")
        panels[1, 0].set_ylim(bottom=0)
        panels[1, len(found) // 2].set_xlabel("training step")
        figure.align_ylabels(list(panels[:, 0]))
        figure.legend(
            handles=legend(found, picture.frame), loc="outside lower center", ncols=6, frameon=False, fontsize=8.5
        )
        figure.savefig(path, dpi=150)
        plt.close(figure)
    print(path)


def draw_curve(axes: Axes, curve: Curve, quantity: str, frame: tuple[float, float] | None) -> None:
    """Values with bands of ± 1.96 standard errors, hollow where the verdict is not 'ok'; at the foot a mark for what is
    below the frame.
    """
    column = [(step, q) for step, q in curve.column(quantity) if q.value is not None]
    steps = np.array([step for step, _ in column], dtype=float)
    value = np.array([q.value for _, q in column], dtype=float)
    error = 1.96 * np.array([q.std_error or 0.0 for _, q in column])
    ok = np.array([q.verdict == "ok" for _, q in column])
    inside = np.full(len(value), True) if frame is None else (value > frame[0]) & (value < frame[1])
    axes.plot(steps[~inside], np.full(np.sum(~inside), 0.03), "v", color=INK, markersize=5, transform=foot(axes))
    # A line to a point far below would be a wall.
    seen, spread = np.where(inside, value, np.nan), np.where(inside, error, np.nan)
    axes.fill_between(steps, seen - spread, seen + spread, color=INK, alpha=0.2, linewidth=0)
    axes.plot(steps, seen, color=INK, linewidth=1)
    axes.plot(steps[ok], seen[ok], "o", color=INK, markersize=2.8)
    axes.plot(steps[~ok], seen[~ok], "o", color=INK, markersize=3.4, markerfacecolor="white", markeredgewidth=0.8)
    if frame is None and quantity == "llc" and seen.min() < 0:
        axes.axhline(0, color="#999999", linewidth=0.8)


def foot(axes: Axes) -> Any:
    """Steps across, shares of the panel's height upwards."""
    return axes.get_xaxis_transform()


def draw_plateaus(axes: Axes, plateaus: Sequence[Mapping[str, Any]]) -> None:
    """The exact λ of every plateau across the panel, and λ̂ of the plateau alone on it."""
    for row in plateaus:
        if row["exact"] is not None:
            axes.axhline(row["exact"], color=EXACT, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
            words = f"{row['label']}: λ = {row['exact']:g}"
            place = {"xycoords": ("axes fraction", "data"), "xytext": (3, 2.5), "textcoords": "offset points"}
            axes.annotate(words, (0, row["exact"]), **place, fontsize=8, color=EXACT, va="bottom")
        if row["llc"]["value"] is not None:
            error = 1.96 * (row["llc"]["std_error"] or 0.0)
            filled = EXACT if row["llc"]["verdict"] == "ok" else "white"
            mark = {"fmt": "D", "color": EXACT, "markerfacecolor": filled, "markersize": 6, "capsize": 3, "zorder": 5}
            mark["clip_on"] = False  # that of the last step stands on the frame
            axes.errorbar(row["step"], row["llc"]["value"], error, **mark)


def draw_count(axes: Axes, curve: Curve, metric: str, is_last: bool) -> None:
    """A posted metric that counts, on an axis of its own at the right of the last panel."""
    counted = [(point.step, point.metrics[metric]) for point in curve.points if metric in point.metrics]
    beside = axes.twinx()
    beside.step(*zip(*counted, strict=True), where="post", color=COUNT, linewidth=1.2)
    beside.set_ylim(0, 1.15 * max(count for _, count in counted))
    beside.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    beside.grid(visible=False)
    beside.tick_params(labelright=is_last, length=0, labelcolor=COUNT)
    if is_last:
        beside.set_ylabel(metric, color=COUNT)


def shade(above: Axes, below: Axes, transitions: Sequence[Stage]) -> None:
    """Transitions, with their types over them."""
    for transition in transitions:
        colour = TYPE_COLOURS[transition.type]
        for axes in (above, below):
            axes.axvspan(transition.from_step, transition.to_step, color=colour, alpha=0.16, linewidth=0, zorder=0)
        middle = middle_step(transition.from_step, transition.to_step)
        look = {"ha": "center", "va": "bottom", "fontsize": 10, "fontweight": "bold", "color": colour}
        place = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
        above.annotate(transition.type or "·", (middle, 1.0), **place, **look)


def set_steps(axes: Axes, first: int, last: int) -> None:
    """log(step + 1), from where something is to be seen."""
    axes.set_xscale("function", functions=(np.log1p, np.expm1))
    axes.set_xlim(first, last * 1.06)
    marks = [mark * 10**power for power in range(7) for mark in ((1,) if first == 0 else (1, 3))]
    axes.xaxis.set_major_locator(FixedLocator([mark for mark in (0, *marks) if first <= mark <= last]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}".replace(",", "\u2009")))
    minor = [m * 10**power for power in range(7) for m in range(2, 10)]
    axes.xaxis.set_minor_locator(FixedLocator([mark for mark in minor if first <= mark <= last]))


def legend(found: Sequence[Found], frame: tuple[float, float] | None) -> list[Patch | Line2D]:
    """Of what there is."""
    types = {transition.type for one in found for transition in one.transitions}
    handles: list[Patch | Line2D] = [
        Patch(color=colour, alpha=0.3, linewidth=0, label=TYPE_NAMES[kind])
        for kind, colour in TYPE_COLOURS.items()
        if kind in types
    ]
    hollow: Mapping[str, Any] = {"marker": "o", "markerfacecolor": "white", "markersize": 4, "linestyle": ""}
    handles.append(Line2D([], [], color=INK, label="verdict not ok", **hollow))
    values = [q.value for one in found for _, q in one.curve.column("llc") if q.value is not None]
    if frame and min(values) < frame[0]:
        handles.append(Line2D([], [], color=INK, marker="v", linestyle="", markersize=5, label="λ̂ far below"))
    if any(one.plateaus for one in found):
        handles.append(Line2D([], [], color=EXACT, linestyle=(0, (5, 3)), linewidth=1, label="exact λ"))
        handles.append(Line2D([], [], color=EXACT, marker="D", linestyle="", label="λ̂ of the plateau alone"))
    return handles


# Tables ---------------------------------------------------------------------------------------------------------------


def tables(found: Sequence[Found]) -> str:
    """Transitions, and plateaus where they were measured."""
    parts = [transition_table(found)]
    if any(one.plateaus for one in found):
        parts.append(plateau_table(found))
    return "\n\n".join(parts)


def transition_table(found: Sequence[Found]) -> str:
    """A row for each."""
    rows = ["| seed | type | probability | from step | to step | Δλ̂ | Δloss |", "|---|---|---|---|---|---|---|"]
    for one in found:
        for stage in one.transitions:
            cells = [
                str(one.seed),
                stage.type or "neither",
                "–" if stage.probability is None else f"{stage.probability:.2f}",
                str(stage.from_step),
                str(stage.to_step),
                number(stage.delta_llc.model_dump(), "+.2f"),
                number(stage.delta_loss.model_dump(), "+.3f"),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def plateau_table(found: Sequence[Found]) -> str:
    """λ̂ on each plateau: along the run, and of the plateau alone, beside what curvatures let expect at its scale."""
    rows = [
        "| seed | plateau | step | λ̂ along the run | λ̂ of the plateau alone | its curvatures say | exact λ |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        for row in one.plateaus:
            cells = [
                str(one.seed),
                row["label"],
                str(row["step"]),
                judged(row["main_llc"]),
                judged(row["llc"]),
                f"{row['expected']:.2f}",
                "–" if row["exact"] is None else f"{row['exact']:g}",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def judged(quantity: Mapping[str, Any]) -> str:
    """A number, and its verdict where that is not ok."""
    words = number(quantity, ".2f")
    return words if quantity["verdict"] == "ok" else f"{words} ({quantity['verdict']})"


def number(quantity: Mapping[str, Any], form: str) -> str:
    """With its standard error."""
    if quantity["value"] is None:
        return "–"
    error = quantity["std_error"]
    return f"{quantity['value']:{form}}" + ("" if error is None else f" ± {error:{form.lstrip('+')}}")


def insert(path: Path, example: str, text: str) -> None:
    """Put a table between its marks, and show it."""
    print(f"\n{example}\n\n{text}\n")
    if path.exists():
        mark = re.compile(rf"(<!-- {example} -->\n).*?(<!-- end -->)", re.DOTALL)

        def put(found: re.Match[str]) -> str:
            return f"{found[1]}\n{text}\n\n{found[2]}"

        path.write_text(mark.sub(put, path.read_text()))


if __name__ == "__main__":
    main()
