"""The picture of a calibration, read from its SVG."""

from pathlib import Path

import pytest

from lambdahat import LambdahatError
from lambdahat.plot_calibration import draw_calibration


def trial(checkpoint: int, kernel: str, epsilon: float, llc: float | None, verdict: str = "ok") -> dict[str, object]:
    return {
        "checkpoint": checkpoint,
        "kernel": kernel,
        "epsilon": epsilon,
        "gamma": 10.0,
        "llc": llc,
        "sampling_error": None if llc is None else 0.5,
        "verdict": verdict,
    }


CALIBRATION = {
    "settings": {"sampler": {"name": "sgld", "epsilon": 1e-3}, "gamma": 10.0},
    "trials": [
        trial(0, "sgld", 2e-3, None, "diverged"),
        trial(0, "sgld", 1e-3, 12.0),
        trial(1, "sgld", 1e-3, 30.0, "too_hot"),
        trial(1, "baoab", 1e-3, 29.0),
    ],
}


def test_every_checkpoint_has_its_panel_and_every_kernel_its_name(tmp_path: Path) -> None:
    drawing = draw_calibration(CALIBRATION, tmp_path / "calibration.svg").read_text()
    for words in ("1 of the pilot", "2 of the pilot", "step size", "SGLD, averaged noise", "chosen", "γ = 10"):
        assert words in drawing
    assert "3 of the pilot" not in drawing


def test_a_name_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LambdahatError, match="can't draw"):
        draw_calibration(CALIBRATION, tmp_path / "calibration.txt")
