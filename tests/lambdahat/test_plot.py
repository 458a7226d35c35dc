"""The picture: what is in it, read from the SVG, and that its PNG is one."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lambdahat import LambdahatError
from lambdahat.drawing import TYPE_COLOURS
from lambdahat.objects import Curve
from lambdahat.plot import draw
from tests.lambdahat import curves


def texts(path: Path) -> list[str]:
    return [re.sub(r"<[^>]*>", "", text) for text in re.findall(r"<text.*?</text>", path.read_text(), re.DOTALL)]


def test_svg_has_every_panel_and_both_transitions(tmp_path: Path) -> None:
    path = draw(curves.curve(), curves.transitions(), tmp_path / "curve.svg", "a < b & c")
    found = texts(path)
    expected = {
        "a &lt; b &amp; c",
        "A",
        "B",
        "loss",
        "Hessian",
        "trace",
        "largest eigenvalue",
        "training step",
        "1\u2009000",
    }
    assert expected <= set(found)
    assert {"verdict not ok", "no finite number"} <= set(found)
    drawing = path.read_text()
    for kind in ("A", "B"):  # a shade in each of the four panels and one patch in the legend
        assert len(re.findall(f"fill: {TYPE_COLOURS[kind]}; opacity", drawing)) == 5


def test_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    found = texts(draw(curves.curve("loss"), [], tmp_path / "curve.svg"))
    assert "loss" in found
    assert not {"Hessian", "A", "B", "verdict not ok"} & set(found)


def test_same_curve_gives_the_same_file(tmp_path: Path) -> None:
    first = draw(curves.curve(), curves.transitions(), tmp_path / "1.svg").read_bytes()
    assert first == draw(curves.curve(), curves.transitions(), tmp_path / "2.svg").read_bytes()


def test_png_is_a_picture_with_both_shades(tmp_path: Path) -> None:
    pixels = imread(draw(curves.curve(), curves.transitions(), tmp_path / "deep" / "curve.png"))[..., :3]
    assert pixels.shape[0] > 800
    for kind in ("A", "B"):
        ink = np.array([int(TYPE_COLOURS[kind][i : i + 2], 16) / 255 for i in (1, 3, 5)])
        shade = 1 - 0.13 * (1 - ink)
        assert (np.abs(pixels - shade).max(axis=-1) < 0.01).mean() > 0.02


@pytest.mark.parametrize("steps", [[0], [7], [0, 1], [100_000, 200_000]])
def test_short_curves_can_be_drawn(steps: list[int], tmp_path: Path) -> None:
    points = [
        {"step": s, "checkpoint": "ckp_1", "loss": {"value": -1.0, "std_error": None, "verdict": "ok"}} for s in steps
    ]
    curve = Curve.model_validate({"series": "ser_1", "job": "job_1", "quantities": ["loss"], "points": points})
    assert draw(curve, [], tmp_path / "curve.png").stat().st_size > 1_000


def test_says_what_is_missing(tmp_path: Path) -> None:
    empty = Curve.model_validate({"series": "ser_1", "job": None, "quantities": [], "points": []})
    with pytest.raises(LambdahatError, match="no curve yet"):
        draw(empty, [], tmp_path / "curve.png")
    with pytest.raises(LambdahatError, match=r"ends in \.png"):
        draw(curves.curve(), [], tmp_path / "curve.gif")
