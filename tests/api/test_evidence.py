"""What else changes at transitions, and metrics beside the curve, over HTTP."""

from typing import Any

import pytest

from tests.api.lab import Lab, parameters, refused
from tests.api.worked import stage, work

STEPS = (0, 1, 2, 3, 4, 5, 10, 20, 40, 60, 80, 100)
HOSTILE = 'value, "x" $\\alpha_{ <b>'
LLC = {step: 2.0 if step < 5 else 9.0 for step in STEPS} | {3: None}


def metrics_at(step: int) -> dict[str, float]:
    """Accuracy changes at the transition, time does not more than elsewhere; one is only sometimes there."""
    rare = {"rare": 1.0} if step in (0, 100) else {}
    return {"accuracy": float(step >= 5), "seconds": 0.5 * (step % 2), HOSTILE: 1.7e308 * (-1) ** step} | rare


@pytest.fixture
def series(lab: Lab) -> str:
    """Its LLC rises from step 4 to step 5."""
    series = lab.series()
    for step in STEPS:
        body = {"step": step, "blob": lab.upload(parameters(step)), "metrics": metrics_at(step)}
        assert lab.post(f"/v1/series/{series}/checkpoints", json=body).status_code == 201
    work(lab, lab.job(series), LLC, [stage(0, "plateau", None, 0, 4), stage(1, "transition", "A", 4, 5)])
    return series


def test_each_curve_says_whether_it_changes(lab: Lab, series: str) -> None:
    answer = lab.get(f"/v1/series/{series}/evidence").json()
    (transition,) = answer["data"]
    assert (transition["transition"]["from_step"], transition["transition"]["type"]) == (4, "A")
    curves = {(one["source"], one["name"]): one for one in transition["curves"]}
    llc, loss = curves["measure", "llc"], curves["measure", "loss"]
    assert llc["change"]["value"] == pytest.approx(7.0)  # where nothing came of it does not count
    assert llc["change"]["std_error"] == pytest.approx((0.5**2 / 3 + 0.5**2 / 3) ** 0.5)
    assert (llc["changes"], llc["share"]) == (True, 1.0)
    assert (loss["changes"], loss["change"]["value"]) == (False, 0.0)
    accuracy, seconds = curves["metric", "accuracy"], curves["metric", "seconds"]
    assert (accuracy["changes"], accuracy["change"]["value"]) == (True, 1.0)
    assert not seconds["changes"]
    unknown = {"change": {"value": None, "std_error": None}, "share": None, "z": None, "changes": None}
    for name in ("rare", HOSTILE):
        assert {key: curves["metric", name][key] for key in unknown} == unknown


def test_before_there_are_results(lab: Lab, other_lab: Lab, series: str) -> None:
    empty = lab.series()
    assert lab.get(f"/v1/series/{empty}/evidence").json() == {"series": empty, "job": None, "data": []}
    refused(other_lab.get(f"/v1/series/{series}/evidence"), 404, "not_found")


def points(lab: Lab, series: str, **asked: Any) -> list[dict[str, Any]]:
    return lab.get(f"/v1/series/{series}/curve", params=asked).json()["points"]


def test_metrics_beside_the_curve(lab: Lab, series: str) -> None:
    assert "metrics" not in points(lab, series)[0]
    assert [point["metrics"] for point in points(lab, series, metric="accuracy")] == [
        {"accuracy": metrics_at(step)["accuracy"]} for step in STEPS
    ]
    assert [point["metrics"] for point in points(lab, series, metric="*")] == [metrics_at(step) for step in STEPS]
    some = points(lab, series, metric=["rare", "seconds"], measure="llc", from_step=60)
    assert [point["metrics"] for point in some] == [{"seconds": 0.0}, {"seconds": 0.0}, {"rare": 1.0, "seconds": 0.0}]


def test_metrics_as_columns(lab: Lab, series: str) -> None:
    asked = {"metric": ["accuracy", "rare"], "measure": "loss", "format": "csv"}
    first, second, *_ = lab.get(f"/v1/series/{series}/curve", params=asked).text.splitlines()[0:3]
    assert first == "step,loss,loss_std_error,loss_verdict,metrics.accuracy,metrics.rare"
    assert second == "0,0.25,0.5,good,0.0,1.0"


def test_a_metric_that_nobody_posted(lab: Lab, series: str) -> None:
    problem = refused(lab.get(f"/v1/series/{series}/curve", params={"metric": "acuracy"}), 422, "unknown_metric")
    assert "accuracy" in problem["hint"]
    refused(lab.get(f"/v1/series/{series}/figure", params={"metric": "acuracy"}), 422, "unknown_metric")
    assert lab.get(f"/v1/series/{lab.series()}/curve", params={"metric": "*"}).json()["points"] == []


def test_they_are_drawn_whatever_they_are(lab: Lab, series: str) -> None:
    without = lab.get(f"/v1/series/{series}/figure", params={"format": "svg"})
    drawn = lab.get(f"/v1/series/{series}/figure", params={"format": "svg", "metric": "*"})
    assert drawn.status_code == 200, drawn.text
    assert "accuracy" in drawn.text
    assert "accuracy" not in without.text
