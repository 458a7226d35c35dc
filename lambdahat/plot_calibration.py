"""The picture of a calibration: what each step size gave at each checkpoint of the pilot, and what was chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambdahat.drawing import drawn, set_title, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KERNELS = {"sgld": ("o", "SGLD, averaged noise"), "baoab": ("s", "BAOAB")}


def draw_calibration(calibration: Mapping[str, Any], path: str | Path, title: str = "") -> Path:
    """Draw a job's `calibration` into a file: PNG, SVG or PDF, by the name's end. Returns the path.

    A panel a checkpoint: λ̂ ± 1.96 standard errors of sampling over ε, at the tether that was chosen; hollow where the
    trial's verdict is not 'ok'; a line at the ε chosen.
    """
    count = len({trial["checkpoint"] for trial in _trials(calibration)})
    height = 1.0 + 1.6 * max(1, count)
    return write_picture(
        path, lambda kind: drawn(7.2, height, lambda figure: _draw_panels(figure, calibration, title), kind)
    )


def _trials(calibration: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """At the tether that was chosen, with a number."""
    gamma = calibration["settings"]["gamma"]
    return [trial for trial in calibration["trials"] if trial["gamma"] == gamma and trial["llc"] is not None]


def _draw_panels(figure: "Figure", calibration: Mapping[str, Any], title: str) -> None:
    chosen, trials = calibration["settings"], _trials(calibration)
    checkpoints = sorted({trial["checkpoint"] for trial in trials})
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
    set_title(panels[0], title or f"calibration: {chosen['sampler']['name']}, γ = {chosen['gamma']:g}", pad=6)
