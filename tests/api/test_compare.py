"""Which of two checkpoints a posterior prefers, over HTTP."""

import math
from typing import Any

import pytest

from tests.api.lab import Lab, refused
from tests.api.worked import stage, work


@pytest.fixture
def series(lab: Lab) -> str:
    """Its LLC falls from 9 to 7 at the same loss; at step 5 nothing came of it."""
    series = lab.series()
    for step in (0, 5, 10):
        lab.checkpoint(series, step)
    work(lab, lab.job(series), {0: 9.0, 5: None, 10: 7.0}, [])
    return series


def test_a_fall_of_the_llc_at_the_same_loss(lab: Lab, series: str) -> None:
    found = lab.get(f"/v1/series/{series}/compare", params={"from_step": 0, "to_step": 10}).json()
    assert found["n"] == 8  # the data set's
    assert found["loss_term"] == 0
    assert found["complexity_term"] == pytest.approx(-2 * math.log(8))
    assert found["complexity_term_std_error"] == pytest.approx(math.hypot(0.5, 0.5) * math.log(8))
    assert (found["preferred"], found["driven_by"], found["predicted_type"]) == ("second", "complexity", "B")
    assert (found["critical_n"], found["critical_n_low"]) == (None, None)
    assert found["first"] == {
        "stage": None,
        "from_step": 0,
        "to_step": 0,
        "loss": {"value": 0.25, "std_error": 0.5, "verdict": "good"},
        "llc": {"value": 9.0, "std_error": 0.5, "verdict": "good"},
    }
    back = lab.get(f"/v1/series/{series}/compare", params={"from_step": 10, "to_step": 0, "n": 1000}).json()
    assert (back["n"], back["preferred"]) == (1000, "first")
    assert back["relative_llc"] == pytest.approx(9 / 7)


def test_two_plateaus(lab: Lab) -> None:
    """By their levels and mean losses, whose errors don't average out; a transition is none."""
    series = lab.series()
    for step in (0, 1, 2, 10, 20):
        lab.checkpoint(series, step)
    level = {"llc": 9.0, "llc_std_error": 0.3}
    plateaus = [
        stage(0, "plateau", None, 0, 2) | {"details": level},
        stage(1, "transition", "B", 2, 10),
        stage(2, "plateau", None, 10, 20) | {"details": level | {"llc": 7.0}},
    ]
    work(lab, lab.job(series), {0: 9.5, 1: 9.0, 2: 8.0, 10: 7.0, 20: 7.0}, plateaus)
    first, between, second = (row["id"] for row in lab.get(f"/v1/series/{series}/stages").json()["data"])
    found = lab.get(f"/v1/series/{series}/compare", params={"from_stage": first, "to_stage": second}).json()
    assert found["complexity_term"] == pytest.approx(-2 * math.log(8))
    assert found["complexity_term_std_error"] == pytest.approx(math.hypot(0.3, 0.3) * math.log(8))
    assert (found["preferred"], found["predicted_type"]) == ("second", "B")
    assert found["first"] == {
        "stage": first,
        "from_step": 0,
        "to_step": 2,
        "loss": {"value": 0.25, "std_error": 0.5, "verdict": "ok"},
        "llc": {"value": 9.0, "std_error": 0.3, "verdict": "ok"},
    }
    mixed = lab.get(f"/v1/series/{series}/compare", params={"from_step": 0, "to_stage": second}).json()
    assert mixed["complexity_term"] == pytest.approx(-2.5 * math.log(8))
    none = lab.get(f"/v1/series/{series}/compare", params={"from_stage": between, "to_stage": second})
    refused(none, 422, "not_a_plateau")


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"from_step": 0, "to_step": 5}, 422, "not_measured"),
        ({"from_step": 0, "to_step": 7}, 422, "not_measured"),
        ({"from_step": 0}, 422, "which_phase"),
        ({"from_step": 0, "to_step": 10, "to_stage": "stg_1"}, 422, "which_phase"),
        ({"from_step": 0, "to_stage": "stg_1"}, 422, "not_a_plateau"),
        ({"from_step": 0, "to_step": 10, "n": 2}, 422, "invalid_request"),
        ({"from_step": 0, "to_step": 10, "n": 2**62 - 1}, 200, None),
        ({"from_step": 0, "to_step": 10, "job": "job_x"}, 404, "not_found"),
    ],
)
def test_questions(lab: Lab, series: str, asked: dict[str, Any], status: int, code: str | None) -> None:
    answer = lab.get(f"/v1/series/{series}/compare", params=asked)
    assert (answer.status_code, answer.json().get("code")) == (status, code)


def test_a_series_without_results_and_another_lab_s(lab: Lab, other_lab: Lab, series: str) -> None:
    asked = {"from_step": 0, "to_step": 10}
    assert lab.get(f"/v1/series/{lab.series()}/compare", params=asked).json()["code"] == "not_measured"
    assert other_lab.get(f"/v1/series/{series}/compare", params=asked).status_code == 404
