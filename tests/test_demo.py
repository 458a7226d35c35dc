"""`make demo`, as a newcomer runs it: both transitions, from its own numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "examples" / "modular_addition.py"


@pytest.mark.timeout(600)
def test_the_demo_finds_one_transition_of_each_type(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, str(DEMO), "--serve", "--out", str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert "$ lambdahat watch job_" in finished.stdout
    found = json.loads((tmp_path / "modular_addition.json").read_text())
    transitions = found["transitions"]
    assert [transition["type"] for transition in transitions] == ["A", "B"]
    memorises, generalises = transitions
    assert memorises["delta_llc"]["value"] > 100 > 0 > memorises["delta_loss"]["value"]
    assert generalises["delta_llc"]["value"] < -100
    assert memorises["to_step"] <= generalises["from_step"]
    for transition in transitions:
        assert abs(transition["delta_llc"]["value"]) > 10 * transition["delta_llc"]["std_error"]
    assert {point["quantities"]["llc"]["verdict"] for point in found["curve"]["points"]} == {"ok"}
    assert (tmp_path / "modular_addition.png").read_bytes().startswith(b"\x89PNG")
