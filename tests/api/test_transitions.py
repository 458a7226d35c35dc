"""Transitions over all series of a lab."""

import base64
from typing import Any

import pytest
from sqlalchemy import text

from tests.api.lab import Lab
from tests.api.worked import stage, work


def cursor(words: str) -> str:
    """As somebody might make one up."""
    return base64.urlsafe_b64encode(words.encode()).decode()


LLC = {0: 1.0, 10: 2.0, 100: 3.0}


@pytest.fixture
def runs(lab: Lab) -> list[str]:
    """Two series, each with a rise and a fall; of the first, an older job had read something else."""
    series = [
        _series(lab, name, tags)
        for name, tags in (("first", {"lr": 0.1, "who": "ada"}), ("second", {"lr": 1, "model:size": "7:b"}))
    ]
    _read(lab, series[0], [stage(0, "transition", None, 0, 100)])
    _read(lab, series[0], [stage(0, "transition", "A", 3, 10), stage(1, "plateau", None, 10, 20)])
    _read(lab, series[1], [stage(0, "transition", "A", 20, 30), stage(1, "transition", "B", 60, 90)])
    return series


def _series(lab: Lab, name: str, tags: dict[str, Any]) -> str:
    series = lab.series(name)
    assert lab.patch(f"/v1/series/{series}", json={"tags": tags}).is_success
    for step in LLC:
        lab.checkpoint(series, step)
    return series


def _read(lab: Lab, series: str, stages: list[dict[str, Any]]) -> None:
    work(lab, lab.job(series), LLC, stages)


def found(lab: Lab, **asked: Any) -> list[tuple[str, str | None, int]]:
    """Name of the series, type and first step of what is answered."""
    answer = lab.get("/v1/transitions", params=asked)
    assert answer.status_code == 200, answer.text
    return [(one["series_name"], one["type"], one["from_step"]) for one in answer.json()["data"]]


FIRST, RISE, FALL = ("first", "A", 3), ("second", "A", 20), ("second", "B", 60)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({}, [FALL, RISE, FIRST]),
        ({"type": "B"}, [FALL]),
        ({"type": "neither"}, []),
        ({"min_probability": 0.96}, [FALL]),
        ({"type": "A", "min_probability": 0.02}, [FALL, RISE, FIRST]),
        ({"type": "A", "min_probability": 0.9}, [RISE, FIRST]),
        ({"from_step": 11}, [FALL, RISE]),
        ({"from_step": 11, "to_step": 59}, [RISE]),
        ({"min_delta_llc": 3.25}, [FALL, RISE, FIRST]),
        ({"min_delta_llc": 3.26}, []),
        ({"family": "mlp"}, [FALL, RISE, FIRST]),
        ({"family": "transformer"}, []),
        ({"min_survival": 0.5}, [FALL]),
        ({"min_survival": 0.9}, []),
        ({"tag": "lr:0.1"}, [FIRST]),
        ({"tag": "lr:1"}, [FALL, RISE]),
        ({"tag": ["lr:0.1", "who:ada"]}, [FIRST]),
        ({"tag": ["lr:1", "who:ada"]}, []),
        ({"tag": ["lr:1", "lr:0.1"]}, []),
        ({"tag": "model:size:7:b"}, [FALL, RISE]),
        ({"tag": "model:size:7"}, []),
        ({"tag": "lr:1e999"}, []),
        ({"tag": f"lr:1{400 * '0'}"}, []),
        ({"tag": 250 * "::"}, []),
        ({"tag": "who:[1"}, []),
    ],
)
@pytest.mark.usefixtures("runs")
def test_they_are_found_by(lab: Lab, asked: dict[str, Any], answer: list[tuple[str, str | None, int]]) -> None:
    assert found(lab, **asked) == answer


def test_each_says_where_it_is_and_how_sure(lab: Lab, runs: list[str]) -> None:
    (fall,) = lab.get("/v1/transitions", params={"type": "B"}).json()["data"]
    of_series = lab.get(f"/v1/series/{runs[1]}/transitions").json()
    where = {"series": runs[1], "series_name": "second", "family": "mlp", "job": of_series["job"]}
    assert fall == of_series["data"][-1] | where
    assert (fall["from_step_low"], fall["from_step_high"], fall["to_step_low"], fall["to_step_high"]) == (
        60,
        62,
        89,
        90,
    )
    assert (fall["probability_a"], fall["probability_b"], fall["probability_neither"]) == (0.02, 0.96, 0.02)


@pytest.mark.usefixtures("runs")
def test_page_after_page(lab: Lab) -> None:
    seen, after = [], None
    while True:
        page = lab.get("/v1/transitions", params={"limit": 1} | ({"after": after} if after else {})).json()
        seen += [(one["series_name"], one["type"], one["from_step"]) for one in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == [FALL, RISE, FIRST]


@pytest.mark.usefixtures("runs")
def test_stages_that_are_read_again_between_two_pages_are_not_missed(lab: Lab) -> None:
    first = lab.get("/v1/transitions", params={"limit": 1}).json()
    with lab.engine.begin() as connection:  # a new reading of the same curve
        connection.execute(text("UPDATE stages SET id = 'stg_ffff' || right(id, 28)"))
    rest = lab.get("/v1/transitions", params={"after": first["next"]}).json()
    assert [(one["series_name"], one["type"]) for one in rest["data"]] == [("second", "A"), ("first", "A")]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("rare", ["GREATEST(probability_a, probability_b) > 1", "abs(delta_llc) > 1e300"])
def test_postgres_knows_what_is_rare(lab: Lab, rare: str) -> None:
    """Else it reads transitions from the newest on until it has found enough: all."""
    many = [stage(n, "transition", "A", n, n + 1) for n in range(300)]
    _read(lab, _series(lab, "third", {}), many)
    with lab.engine.begin() as connection:
        connection.execute(text("ANALYZE stages"))
        (plan,) = connection.scalars(
            text(f"EXPLAIN (FORMAT JSON) SELECT FROM stages WHERE kind = 'transition' AND {rare}")
        ).one()
    assert plan["Plan"]["Plan Rows"] < 10


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"type": "C"}, "invalid_request"),
        ({"min_probability": 1.1}, "invalid_request"),
        ({"min_delta_llc": "nan"}, "invalid_request"),
        ({"from_step": -1}, "invalid_request"),
        ({"family": "a\0"}, "invalid_request"),
        ({"tag": "a:\0"}, "invalid_request"),
        ({"tag": "lr"}, "bad_tag"),
        ({"after": "x"}, "bad_cursor"),
        ({"after": cursor('["job_\\u0000", 1]')}, "bad_cursor"),
        ({"after": cursor(f'["job_{32 * "0"}", {2**31}]')}, "bad_cursor"),
    ],
)
def test_bad_questions(lab: Lab, asked: dict[str, Any], code: str) -> None:
    answer = lab.get("/v1/transitions", params=asked)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.usefixtures("runs")
def test_another_lab_sees_none(other_lab: Lab) -> None:
    assert found(other_lab) == []
