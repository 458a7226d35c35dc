"""What series have in common, by the client and on the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lambdahat import ApiError, Client
from tests.lambdahat import lab
from tests.lambdahat.service import Service


@pytest.fixture
def seeds(client: Client, engine: Engine) -> list[str]:
    """Three runs that are the same, and one that nothing has measured."""
    found = [lab.measured_series(client, engine, f"seed {seed}")[0] for seed in range(3)]
    found.append(lab.new_series(client, "unmeasured"))
    for seed, series in enumerate(found):
        client.update_series(series, tags={"experiment": "seeds", "seed": seed})
    return [series.id for series in found]


def test_the_client(client: Client, seeds: list[str]) -> None:
    found = client.align(tags={"experiment": "seeds"})
    assert found == client.align([client.series(seeds[0]), *seeds[1:]])
    assert [(one.type, one.support, one.from_step.median) for one in found.common] == [("A", 3, 11), ("B", 3, 180)]
    assert found.common[0].delta_llc.value == pytest.approx(197)
    assert found.common[0].delta_llc.std_error == pytest.approx(0)
    assert [run.series for run in found.runs] == seeds[:3]
    assert [run.matched for run in found.runs] == [[0, 1]] * 3
    assert [run.transitions[1].delta_llc.value for run in found.runs] == [-241.0] * 3
    assert (found.outliers, found.without_stages) == ([], seeds[3:])
    by_loss = client.align(seeds, axis="loss")
    assert by_loss.common[0].from_loss is not None
    before, after = by_loss.common[0].from_loss, by_loss.common[0].to_loss
    assert before is not None
    assert after is not None
    assert before.median > after.median
    assert [run.tempo for run in by_loss.runs] == [None] * 3
    with pytest.raises(ApiError) as refused:
        client.align(seeds[:1], {"seed": 7})
    assert refused.value.code == "too_few_series"


def test_the_command(
    service: Service, key: str, seeds: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAMBDAHAT_URL", service.url)
    monkeypatch.setenv("LAMBDAHAT_KEY", key)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("lambdahat")), "align", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    by_tag = run("--tag", "experiment:seeds")
    assert by_tag.returncode == 0, by_tag.stderr
    rows = [line.split() for line in by_tag.stdout.splitlines()]
    assert ["1", "A", "3/3", "11", "60", "-3.41", "±", "0", "197", "±", "0"] in rows
    assert ["2", "B", "3/3", "180", "700", "-0.031", "±", "0", "-241", "±", "0"] in rows
    assert ["seed", "2", "1", "2", "1.00", "×", "0.0", "ok"] in rows
    assert f"no stages of {seeds[3]}" in by_tag.stdout
    picture = tmp_path / "new" / "seeds.svg"
    drawn = run("--tag", "experiment:seeds", "--output", str(picture))
    assert drawn.stdout.split() == [*by_tag.stdout.split(), str(picture)]
    assert ">seed 2<" in picture.read_text()
    assert ".png, .svg or .pdf" in run(*seeds, "-o", "seeds.doc").stderr
    by_name = run("seed 0", seeds[1], "--axis", "loss")
    assert by_name.returncode == 0, by_name.stderr
    assert "from loss" in by_name.stdout
    for arguments, words in ((["--tag", "seeds"], "no tag"), ([seeds[0]], "nothing to align"), (["x"], "no series")):
        wrong = run(*arguments)
        assert wrong.returncode == 1
        assert words in wrong.stderr
