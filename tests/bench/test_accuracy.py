"""The harness: records, resuming, the report."""

import shutil
from pathlib import Path

import pytest

from bench import truth as truths
from bench.accuracy import Results, run_ours
from bench.methods import budget, methods
from bench.problems import problem
from bench.report import Judged, write
from bench.truth import truth


@pytest.fixture(autouse=True)
def references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the cache."""
    monkeypatch.setattr(truths, "REFERENCES", Path(shutil.copy(truths.REFERENCES, tmp_path)))


QUADRATIC = "quadratic/1e0"
WANTED = ("sgld", "averaged")


def test_methods_take_equal_gradients_and_come_near_the_truth() -> None:
    one = problem(QUADRATIC)
    found = [method(one, 0) for name, method in methods(one, 0.25).items() if name in ("sgld", "baoab", "mala")]
    assert {record.gradient_evaluations for record in found} == {budget(one, 0.25)}
    for record in found:
        judged = Judged(record, one, truth(one))
        assert record.std_error is not None
        assert record.std_error < 0.1 * judged.truth.value
        assert judged.error_bars < 4


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.jsonl"
    first = Results(path, resume=False)
    run_ours(first, [QUADRATIC], WANTED, seeds=2, effort=0.05)
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    path.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    again = Results(path, resume=True)
    assert len(again.records) == 3
    run_ours(again, [QUADRATIC], WANTED, seeds=2, effort=0.05)
    strip = {"seconds": 0.0}
    assert [r.model_copy(update=strip) for r in again.records] == [r.model_copy(update=strip) for r in first.records]
    assert len(Results(path, resume=True).records) == 4
    assert Results(path, resume=False).records == []


def test_the_report_holds_estimates_to_the_truth(tmp_path: Path) -> None:
    results = Results(tmp_path / "accuracy.jsonl", resume=False)
    run_ours(results, [QUADRATIC], WANTED, seeds=1, effort=0.05)
    good = results.records[0].model_copy(
        update={"estimate": 9.999, "std_error": 0.1, "verdict": "ok", "method": "good"}
    )
    bad = good.model_copy(update={"estimate": 20.0, "method": "bad"})
    none = good.model_copy(update={"estimate": None, "std_error": None, "verdict": "diverged", "method": "none"})
    write([good, bad, none], tmp_path, missing=["devinterp13"])
    rows = {line.split(" | ")[0].strip("| "): line for line in (tmp_path / "accuracy.md").read_text().splitlines()}
    assert "100% of 1 | 100% of 1 | none" in rows["good"]
    assert "100 % | 100 % | 0% of 1 | none | 0% of 1" in rows["bad"]
    assert "| 1 | no number | no number |" in rows["none"]
    assert "100% of 1" in rows["none"]
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
