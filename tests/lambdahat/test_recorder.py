"""The recorder: nothing is lost, nothing waits for the network, nothing is left behind."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lambdahat import Client, LambdahatError, Recorder, RecorderError, log_linear_steps
from tests.lambdahat import lab
from tests.lambdahat.service import Service


def module_state(seed: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in lab.state(seed).items()}


def test_records_what_the_schedule_says(client: Client, tmp_path: Path) -> None:
    series = lab.new_series(client, steps=())
    schedule = log_linear_steps(30, num_log=4, num_linear=3)
    state = module_state(0)
    with Recorder(client, series, schedule) as recorder:
        for step in range(31):
            kept = recorder.record(step, state, {"step_plus_half": step + 0.5})
            assert kept == (step in schedule)
            for tensor in state.values():
                tensor += 1.0  # as an optimizer does, in place, at once
    there = list(client.list_checkpoints(series))
    assert [checkpoint.step for checkpoint in there] == schedule
    assert [checkpoint.metrics["step_plus_half"] for checkpoint in there] == [step + 0.5 for step in schedule]
    # The blob's hash is that of the weights as they were at the step, not later.
    for checkpoint in there:
        then = {name: array + np.float32(0) for name, array in lab.state(0).items()}
        for _ in range(checkpoint.step):
            then = {name: array + np.float32(1) for name, array in then.items()}
        again = client.add_checkpoint(series, checkpoint.step, then)
        assert again.id == checkpoint.id
    assert [path.name for path in recorder.folder.iterdir()] == ["series.json"]
    assert recorder.folder.absolute() == tmp_path / "lambdahat_spool" / series.id


def test_keeps_the_files_when_asked(client: Client, tmp_path: Path) -> None:
    series = lab.new_series(client, steps=())
    with Recorder(client, series.id, folder=tmp_path / "kept", keep=True) as recorder:
        recorder.record(10, lab.state(), {"loss": 0.5})
    found = load_file(tmp_path / "kept" / "step_0000000010.safetensors")
    np.testing.assert_array_equal(found["layers.0.weight"], lab.state()["layers.0.weight"])
    about = json.loads((tmp_path / "kept" / "step_0000000010.json").read_text())
    assert about == {"step": 10, "metrics": {"loss": 0.5}}


def test_training_does_not_wait_for_a_server_that_is_away(environment: Mapping[str, str], key: str) -> None:
    with Service(environment) as service, Client(service.url, key, retries=0) as client:
        series = lab.new_series(client, steps=())
        service.stop()
        recorder = Recorder(client, series)
        start = time.perf_counter()
        for step in range(20):
            recorder.record(step, lab.state(step))
        assert time.perf_counter() - start < 2.0
        assert len(list(recorder.folder.glob("*.safetensors"))) == 20
        service.start()
        recorder.close()
        assert [checkpoint.step for checkpoint in client.list_checkpoints(series)] == list(range(20))


def test_a_run_that_begins_again_over_what_it_left(environment: Mapping[str, str], key: str) -> None:
    """The first parameters of a step stay, and are posted once; nothing is said to be lost."""
    with Service(environment) as service, Client(service.url, key, retries=0) as client:
        series = lab.new_series(client, steps=())
        service.stop()
        recorder = Recorder(client, series)
        for step in (0, 10):
            recorder.record(step, lab.state(step))
        with pytest.raises(RecorderError):
            recorder.close(timeout=0.1)
        service.start()
        with Recorder(client, series) as again:
            for step in (0, 10, 20):
                assert again.record(step, lab.state(100 + step))
        assert [checkpoint.step for checkpoint in client.list_checkpoints(series)] == [0, 10, 20]
        assert client.add_checkpoint(series, 10, lab.state(10)).step == 10
        assert not list(again.folder.glob("*.safetensors"))


def test_what_could_not_be_posted_is_safe_and_said(environment: Mapping[str, str], key: str) -> None:
    with Service(environment) as service, Client(service.url, key, retries=0) as client:
        series = lab.new_series(client, steps=())
        service.stop()
        recorder = Recorder(client, series)
        recorder.record(1, lab.state(1))
        recorder.record(2, lab.state(2))
        with pytest.raises(RecorderError, match=f"lambdahat push {recorder.folder}") as lost:
            recorder.close(timeout=0.2)
        assert set(lost.value.failures) == {"step_0000000001.safetensors", "step_0000000002.safetensors"}
        # The next recorder of this series posts what the last one left.
        service.start()
        with Recorder(client, series) as recorder:
            recorder.record(3, lab.state(3))
        assert [checkpoint.step for checkpoint in client.list_checkpoints(series)] == [1, 2, 3]
        assert list(recorder.folder.glob("*.safetensors")) == []


def test_a_refused_checkpoint_stops_no_other(client: Client) -> None:
    series = lab.new_series(client, steps=())
    broken = lab.state() | {"layers.1.bias": np.array([0.0, np.nan], np.float32)}
    recorder = Recorder(client, series)
    recorder.record(0, lab.state())
    recorder.record(1, broken)
    recorder.record(2, lab.state(2))
    with pytest.raises(RecorderError, match=r"1 checkpoint .* NaN") as refused:
        recorder.close()
    assert set(refused.value.failures) == {"step_0000000001.safetensors"}
    assert [checkpoint.step for checkpoint in client.list_checkpoints(series)] == [0, 2]
    assert [path.name for path in recorder.folder.glob("*.safetensors")] == ["step_0000000001.safetensors"]


def test_the_loops_own_error_is_the_one_raised(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    series = lab.new_series(client, steps=())

    def train() -> None:
        with Recorder(client, series) as recorder:
            recorder.record(0, lab.state())
            recorder.record(1, {"wrong": np.zeros(1, np.float32)})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert "1 checkpoint of series" in caplog.text
    assert [checkpoint.step for checkpoint in client.list_checkpoints(series)] == [0]


def test_refuses_misuse_at_once(client: Client, tmp_path: Path) -> None:
    series, other = lab.new_series(client, steps=()), lab.new_series(client, steps=())
    with Recorder(client, series, folder=tmp_path / "spool") as recorder:
        recorder.record(0, lab.state())
        with pytest.raises(LambdahatError, match="step 0 was recorded already"):
            recorder.record(0, lab.state())
        with pytest.raises(LambdahatError, match="'lr'"):
            recorder.record(1, {"lr": "fast"})
        with pytest.raises(LambdahatError, match="folder of its own"):
            Recorder(client, other, folder=tmp_path / "spool")
    with pytest.raises(LambdahatError, match="closed"):
        recorder.record(2, lab.state())
    assert [checkpoint.step for checkpoint in client.list_checkpoints(series)] == [0]
