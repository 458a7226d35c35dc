"""The command line as a person uses it: the real program, the real API."""

import csv
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sqlalchemy import Engine

from lambdahat import Client, Recorder
from lambdahat.cli import with_options
from llc.draw_files import read_draws
from tests.lambdahat import curves, lab
from tests.lambdahat.service import Service

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(service: Service, key: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`lambdahat ARGUMENTS` for this test's tenant."""
    monkeypatch.setenv("LAMBDAHAT_URL", service.url)
    monkeypatch.setenv("LAMBDAHAT_KEY", key)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("lambdahat")), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


def ok(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def failed(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode == 1, finished
    assert "Traceback" not in finished.stderr
    return finished.stderr


def checkpoint_folder(folder: Path, steps: tuple[int, ...]) -> Path:
    folder.mkdir()
    for step in steps:
        save_file(lab.state(step), folder / f"run2-step{step}.safetensors")
    return folder


def test_help_and_whoami(run: Run) -> None:
    commands = ok(run("--help"))
    for command in ("serve", "push", "run", "watch", "curve", "plot", "export", "draws", "whoami"):
        assert f" {command} " in commands
        options = ok(run(command, "--help"))
        assert ("--key" in options) == (command != "serve")
    assert "test_help_and_whoami" in ok(run("whoami"))


def test_push_a_folder(run: Run, client: Client, tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path / "my run", (0, 5, 100))
    (folder / "model.json").write_text(json.dumps(lab.SPEC))
    np.savez(folder / "data.npz", allow_pickle=False, **lab.data())
    said = ok(run("push", folder))
    assert "my run: posted 3, skipped 0" in said
    series = client.series(said.split()[0])
    assert (series.name, series.num_checkpoints, series.last_step) == ("my run", 3, 100)

    save_file(lab.state(200), folder / "run2-step200.safetensors")
    assert "posted 1, skipped 3" in ok(run("push", folder, "--series", series.id))
    save_file(lab.state(7), folder / "run2-step200.safetensors")
    assert "step_exists" not in (clash := failed(run("push", folder, "--series", series.id)))
    assert "200" in clash


def test_push_what_torch_saved(run: Run, client: Client, tmp_path: Path) -> None:
    series = lab.new_series(client, steps=())
    folder = checkpoint_folder(tmp_path / "run", (1,))
    for name in ("model-2.pt", "model-3.pth", "model-4.bin"):
        torch.save({name: torch.from_numpy(array) for name, array in lab.state(7).items()}, folder / name)
    assert "posted 3, skipped 0" in ok(run("push", folder, "--series", series.id))
    assert [(c.step, c.source is not None) for c in client.list_checkpoints(series)] == [
        (1, False),
        (2, True),
        (3, True),
    ]
    assert "posted 0, skipped 3" in ok(run("push", folder, "--series", series.id))


def test_push_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path / "run", (1,))
    assert "--model" in failed(run("push", folder))
    save_file(lab.data(), tmp_path / "data.safetensors")
    (tmp_path / "model.json").write_text("{")
    model_and_data = ("--model", tmp_path / "model.json", "--data", tmp_path / "data.safetensors")
    assert "is not JSON" in failed(run("push", folder, *model_and_data))
    (tmp_path / "model.json").write_text(json.dumps({**lab.SPEC, "widths": [3, 5, 2]}))
    assert "'layers.0.weight' has shape [4, 3]" in failed(run("push", folder, *model_and_data))
    (tmp_path / "empty").mkdir()
    assert "no checkpoints" in failed(run("push", tmp_path / "empty", *model_and_data))


def test_push_what_a_recorder_left(run: Run, client: Client, tmp_path: Path) -> None:
    series = lab.new_series(client, steps=())
    with Recorder(client, series, folder=tmp_path / "spool", keep=True) as recorder:
        recorder.record(3, lab.state(3), {"loss": 0.25})
    again = lab.new_series(client, "again", steps=())
    (tmp_path / "spool" / "series.json").write_text(json.dumps({"series": again.id}))
    assert "posted 1" in ok(run("push", tmp_path / "spool"))
    assert [(c.step, c.metrics) for c in client.list_checkpoints(again)] == [(3, {"loss": 0.25})]


def test_run_watch_and_see(run: Run, client: Client, engine: Engine, tmp_path: Path) -> None:
    series = lab.new_series(client, "grokking", steps=curves.STEPS)
    (tmp_path / "settings.json").write_text(json.dumps({"checkpoints_per_shard": 14, "measures": {"llc": {"seed": 5}}}))

    def work() -> None:
        while (job := next(client.list_jobs(series), None)) is None:
            time.sleep(0.05)
        lab.work(engine, job)

    worker = threading.Thread(target=work)
    worker.start()
    options = ("--gamma", 10, "--epsilon", "1e-4", "--chains", 3, "--hessian", "--settings", tmp_path / "settings.json")
    said = ok(run("run", "grokking", *options, "--watch"))
    worker.join()
    job = client.job(said.split()[0])
    llc = job.settings["measures"]["llc"]
    assert (llc["gamma"], llc["sampler"]["epsilon"], llc["num_chains"], llc["seed"]) == (10.0, 1e-4, 3, 5)
    assert job.settings["measures"]["hessian"] is not None
    assert len(job.settings["measures"]["loss"]) == 0

    assert "197.0 ± 8.4" in said
    assert "-0.031 ± 0.011" in said
    table = ok(run("watch", job.id))
    assert table.splitlines() == said.splitlines()[1:]
    assert f"llc: diverged at step {curves.DIVERGED}: 2 of 4 chains left the numbers <b>at step 17</b>" in table
    assert ok(run("watch", series.id)) == table
    assert ok(run("curve", series.id)) == table


def test_curve_in_every_format(run: Run, client: Client, engine: Engine, tmp_path: Path) -> None:
    series, job = lab.measured_series(client, engine)
    rows = list(csv.DictReader(ok(run("curve", series.id, "--format", "csv", "--measure", "llc")).splitlines()))
    assert [int(row["step"]) for row in rows] == curves.STEPS
    assert float(rows[0]["llc"]) == curves.quantities(0)["llc"]["value"]
    found = json.loads(ok(run("curve", "grokking", "-f", "json", "--job", job.id)))
    assert found["job"] == job.id
    assert found["points"][0]["quantities"]["loss"]["verdict"] == "ok"

    picture = tmp_path / "out" / "curve.png"
    assert str(picture) in ok(run("plot", series.id, "--output", picture))
    assert picture.read_bytes().startswith(b"\x89PNG")

    ok(run("export", series.id, tmp_path / "all.json"))
    everything = json.loads((tmp_path / "all.json").read_text())
    assert everything["series"]["id"] == series.id
    assert everything["job"]["settings"] == job.settings
    assert [point["metrics"] for point in everything["curve"]["points"]] == len(curves.STEPS) * [{"test_loss": 1.0}]
    assert [transition["type"] for transition in everything["transitions"]] == ["A", "B"]
    ok(run("export", series.id, tmp_path / "all.csv"))
    header = (tmp_path / "all.csv").read_text().splitlines()[0]
    assert header.startswith("step,")
    assert header.endswith(",metrics.test_loss")
    assert (tmp_path / "all.transitions.csv").read_text().splitlines()[1] == (
        "A,11,9,13,60,52,71,0.99,0.0,0.01,1.0,-3.41,0.02,197.0,8.4"
    )
    assert json.loads((tmp_path / "all.settings.json").read_text())["job"]["settings"] == job.settings


def test_draws_to_a_file(run: Run, client: Client, engine: Engine, environment: dict[str, str], tmp_path: Path) -> None:
    series = lab.new_series(client, steps=(0, 5))
    job = client.run(series)
    lab.work_with_draws(engine, job, Path(environment["LAMBDAHAT_BLOB_DIR"]))
    first, last = client.list_checkpoints(series)
    assert "draws_5.safetensors" in ok(run("draws", job.id, 5))
    assert np.array_equal(read_draws(Path("draws_5.safetensors")).draws.losses, client.draws(job, last)["losses"])
    assert "x.nc" in ok(run("draws", "grokking", first.id, "--output", tmp_path / "x.nc", "--format", "netcdf"))
    assert (tmp_path / "x.nc").read_bytes()[1:4] == b"HDF"
    assert "no checkpoint of step 7" in failed(run("draws", job.id, 7))
    assert "keep_draws" in failed(run("draws", client.run(series).id, 5))


def test_a_job_that_fails_or_is_cancelled(run: Run, client: Client, engine: Engine) -> None:
    series = lab.new_series(client)
    job = client.run(series)
    lab.fail(engine, lab.half_way(engine, job), "the machine ran out of memory")
    assert "the machine ran out of memory" in failed(run("watch", job.id))
    assert "was cancelled" in failed(run("watch", client.cancel(client.run(series)).id))


def test_what_changes_at_a_transition_and_metrics_beside_the_curve(
    run: Run, client: Client, engine: Engine, tmp_path: Path
) -> None:
    series, job = lab.measured_series(client, engine)
    table = ok(run("evidence", series.id))
    (transition, *_) = client.transitions(series)
    assert f"{transition.from_step}–{transition.to_step}" in table
    assert "test_loss (metric)" in table
    llc = next(change for change in client.evidence(series, job)[0].curves if change.name == "llc")
    assert llc.changes
    assert f"{llc.share:.0%}" in table
    picture = tmp_path / "with.svg"
    ok(run("plot", series.id, "-o", picture, "--metric", "test_loss"))
    assert "test loss" in picture.read_text()
    assert "has a metric" in failed(run("plot", series.id, "-o", picture, "--metric", "tost_loss"))
    curve = client.curve(series, "llc", metrics=["test_loss"])
    assert {point.metrics["test_loss"] for point in curve.points} == {1.0}


def test_a_job_that_follows_until_it_is_to_finish(run: Run, client: Client, engine: Engine) -> None:
    series = lab.new_series(client)
    job = client.job(ok(run("run", series.id, "--follow")).split()[0])
    assert job.following
    lab.work(engine, job)
    assert client.job(job).state == "running"
    assert "succeeded" in ok(run("finish", job.id))


def test_errors_are_a_line_and_a_hint(
    run: Run, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = lab.new_series(client)
    assert failed(run("curve", "nobody")).startswith("error: there is no series called 'nobody'\n")
    assert "ser_0" in failed(run("curve", "ser_0"))
    assert failed(run("run", series.id, "--chains", 1)).count("num_chains") == 1
    assert "has no job" in failed(run("watch", series.id))
    assert "no curve yet" in failed(run("plot", series.id))
    assert "no results yet" in failed(run("export", series.id, tmp_path / "x.json"))
    assert ".json or .csv" in failed(run("export", series.id, tmp_path / "x.parquet"))
    assert "no results yet" in ok(run("curve", series.id))
    assert "401" not in (refused := failed(run("whoami", "--key", "lh_wrong")))
    assert refused.startswith("error: ")
    monkeypatch.delenv("LAMBDAHAT_KEY")
    assert "no API key" in failed(run("whoami"))


def test_options_leave_other_settings_alone() -> None:
    given = {"measures": {"llc": {"gamma": 1.0, "sampler": {"name": "sgld"}}, "loss": None}, "device": "cpu"}
    assert with_options(given, {"num_draws": 50}, 1e-6, None) == {
        "measures": {
            "llc": {"gamma": 1.0, "num_draws": 50, "sampler": {"name": "sgld", "epsilon": 1e-6}},
            "loss": None,
        },
        "device": "cpu",
    }
    assert with_options({"measures": {"hessian": {}}}, {}, None, False) == {"measures": {"hessian": None}}
    assert with_options({}, {}, None, None) == {}
