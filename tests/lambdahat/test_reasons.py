"""What the command line says of verdicts other than 'ok'."""

from typing import Any

import pytest

from lambdahat._cli_watch import show_reasons
from lambdahat.objects import Result

SICK = {"verdict": "not_mixed", "reason": "the chains disagree"}
WELL = {"verdict": "ok", "reason": ""}


def result(step: int, measure: dict[str, str], refined: dict[str, str]) -> Result:
    number: dict[str, Any] = {"value": 1.0, "std_error": 0.1}
    quantities = {"llc": number | measure, "llc_head": number | refined}
    rest = {"checkpoint": f"ckp_{step}", "step": step, "measure": "llc", "details": {}}
    return Result.model_validate(rest | {"quantities": quantities} | measure)


def said(capsys: pytest.CaptureFixture[str], *results: Result) -> list[str]:
    show_reasons(results, {found.checkpoint for found in results})
    return capsys.readouterr().out.split("\n")[1:-1]


def test_a_quantity_with_a_verdict_of_its_own_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, result(0, WELL, WELL), result(10, WELL, SICK), result(20, SICK, SICK))
    assert found == [
        "llc_head: not_mixed at step 10: the chains disagree",
        "llc: not_mixed at step 20: the chains disagree",
    ]


def test_quantities_that_are_better_than_their_measure_are_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, result(0, SICK, WELL)) == ["llc: not_mixed at step 0: the chains disagree"]
