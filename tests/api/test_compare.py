"""Which of two checkpoints a posterior prefers, over HTTP."""

import math
from typing import Any

import pytest

from tests.api.lab import Lab
from tests.api.worked import work


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
        "step": 0,
        "loss": {"value": 0.25, "std_error": 0.5, "verdict": "good"},
        "llc": {"value": 9.0, "std_error": 0.5, "verdict": "good"},
    }
    back = lab.get(f"/v1/series/{series}/compare", params={"from_step": 10, "to_step": 0, "n": 1000}).json()
    assert (back["n"], back["preferred"]) == (1000, "first")
    assert back["relative_llc"] == pytest.approx(9 / 7)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"from_step": 0, "to_step": 5}, 422, "not_measured"),
        ({"from_step": 0, "to_step": 7}, 422, "not_measured"),
        ({"from_step": 0}, 422, "invalid_request"),
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
