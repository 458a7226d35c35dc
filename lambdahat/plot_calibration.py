"""The picture of a calibration: what each step size gave at each checkpoint of the pilot, and what was chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lambdahat.plot import STYLE, check_picture

KERNELS = {"sgld": ("o", "SGLD, averaged noise"), "baoab": ("s", "BAOAB")}


def draw_calibration(calibration: Mapping[str, Any], path: str | Path, title: str = "") -> Path:
    """Draw a job's `calibration` into a file: PNG, SVG or PDF, by the name's end. Returns the path.

    A panel a checkpoint: λ̂ ± 1.96 standard errors of sampling over ε, at the tether that was chosen; hollow where the
    trial's verdict is not 'ok'; a line at the ε chosen.
    """
    path = check_picture(path)
    chosen = calibration["settings"]
    trials = [t for t in calibration["trials"] if t["gamma"] == chosen["gamma"] and t["llc"] is not None]
    checkpoints = sorted({trial["checkpoint"] for trial in trials})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.0 + 1.6 * max(1, len(checkpoints))), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        panels = figure.subplots(max(1, len(checkpoints)), 1, sharex=True, squeeze=False)[:, 0]
        for axes, checkpoint in zip(panels, checkpoints, strict=False):
            for name, (marker, label) in KERNELS.items():
                mine = [t for t in trials if t["checkpoint"] == checkpoint and t["kernel"] == name]
                for trial in mine:
                    axes.errorbar(
                        trial["epsilon"],
                        trial["llc"],
                        1.96 * (trial["sampling_error"] or 0.0),
                        fmt=marker,
                        color="#0072b2" if name == "sgld" else "#d55e00",
                        markerfacecolor=None if trial["verdict"] == "ok" else "white",
                        markersize=4.5,
                        capsize=2,
                        label=label if trial is mine[0] else None,
                    )
            axes.axvline(chosen["sampler"]["epsilon"], color="#999999", linewidth=0.8, linestyle="--", label="chosen")
            axes.set_ylabel(f"λ̂ at checkpoint\n{checkpoint + 1} of the pilot")
        panels[-1].set_xscale("log")
        panels[-1].set_xlabel("step size ε")
        panels[0].legend(frameon=False, fontsize=8, loc="best")
        panels[0].set_title(
            title or f"calibration: {chosen['sampler']['name']}, γ = {chosen['gamma']:g}",
            loc="left",
            fontsize=11,
            fontweight="bold",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    return path
