"""Pictures drawn by the service."""

from xml.etree import ElementTree

import pytest

from tests.api.lab import Lab, created, parameters, refused
from tests.api.worked import stage, work

NAME = "<b>50 $\\alpha_{</b> & co"


@pytest.fixture
def series(lab: Lab) -> str:
    """With a curve and two transitions; its name is hostile to markup and to formulas."""
    series = lab.series(NAME)
    for step in (0, 5, 10, 100):
        lab.checkpoint(series, step)
    stages = [stage(0, "transition", "A", 2, 6), stage(1, "transition", "B", 20, 70)]
    work(lab, lab.job(series), {0: 2.0, 5: None, 10: 7.0, 100: 3.0}, stages)
    return series


def test_a_png(lab: Lab, series: str) -> None:
    first, again = (lab.get(f"/v1/series/{series}/figure") for _ in range(2))
    assert first.headers["content-type"] == "image/png"
    assert first.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(first.content) > 20_000
    assert again.content == first.content
    unchanged = lab.get(f"/v1/series/{series}/figure", headers={"If-None-Match": first.headers["etag"]})
    assert unchanged.status_code == 304


def test_an_svg_has_the_name_and_the_types_as_text(lab: Lab, series: str) -> None:
    answer = lab.get(f"/v1/series/{series}/figure", params={"format": "svg"})
    assert answer.headers["content-type"] == "image/svg+xml"
    words = [
        "".join(text.itertext()).strip()
        for text in ElementTree.fromstring(answer.content).iter()
        if text.tag.endswith("}text")
    ]
    assert NAME in words
    assert {"A", "B", "loss", "training step"} <= set(words)
    assert b"<script" not in answer.content


def test_more_metrics_than_a_picture_has_room_for(lab: Lab) -> None:
    """A checkpoint may have hundreds, and each other ones."""
    series = lab.series()
    for step in (0, 5):
        metrics = {f"of_{step}_{number}": float(number) for number in range(9)}
        body = {"step": step, "blob": lab.upload(parameters(step)), "metrics": metrics}
        created(lab.post(f"/v1/series/{series}/checkpoints", json=body))
    work(lab, lab.job(series), {0: 2.0, 5: 3.0}, [])
    path = f"/v1/series/{series}/figure"
    problem = refused(lab.get(path, params={"metric": "*"}), 422, "too_many_metrics")
    assert "18 metrics" in problem["detail"]
    assert lab.get(path, params={"metric": [f"of_0_{number}" for number in range(3)]}).is_success


def test_nothing_to_draw_and_nobody_else_s(lab: Lab, other_lab: Lab, series: str) -> None:
    answer = lab.get(f"/v1/series/{lab.series()}/figure")
    assert (answer.status_code, answer.json()["code"]) == (422, "nothing_to_draw")
    assert lab.get(f"/v1/series/{series}/figure", params={"format": "exe"}).status_code == 422
    assert other_lab.get(f"/v1/series/{series}/figure").status_code == 404
