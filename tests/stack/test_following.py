"""A series in training, on the whole stack: each checkpoint is measured as it comes, and transitions are told of."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lambdahat
from lambdahat.stack import Stack
from tests.receiver import HERE, eventually, receiving

SPEC = {"family": "deep_linear", "widths": [4, 4, 4]}
MEASURES = {
    "loss": {},
    "llc": {"sampler": {"epsilon": 5e-3}, "gamma": 100.0, "nbeta": 50.0, "num_draws": 100, "num_burnin_steps": 40},
}
SIZES = [0.05] * 8 + [1.0] * 10
"""Of both layers, which learn to return their input: a saddle, then a minimum."""


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    for name, value in HERE.items():
        monkeypatch.setenv(name, value)
    with (
        tempfile.TemporaryDirectory(prefix="lh-", dir="/tmp") as folder,
        Stack(Path(folder), port=0, workers=1) as stack,
    ):
        yield stack


def weights(size: float) -> dict[str, np.ndarray]:
    return {f"layers.{i}.weight": np.float32(size) * np.eye(4, dtype=np.float32) for i in range(2)}


def test_it_is_measured_as_it_comes_and_its_transition_told_of_once(stack: Stack) -> None:
    x = np.random.default_rng(0).normal(size=(256, 4)).astype(np.float32)
    with receiving() as receiver, lambdahat.Client(stack.url, stack.key) as client:
        client.create_webhook(f"{receiver.url}/hook", ["transition.certain"])
        dataset = client.create_dataset("itself", x=x, y=x)
        series = client.create_series("in training", client.create_model("linear", SPEC), dataset)
        job = client.run(series, MEASURES, follow=True)

        def measured() -> int:
            return len(client.curve(series, "llc", job).points)

        for step, size in enumerate(SIZES):
            client.add_checkpoint(series, step, weights(size))
            if step in (3, len(SIZES) - 1):
                eventually(lambda posted=step + 1: measured() == posted, 90)
            if step == 3:
                assert client.job(job).following
                assert not client.transitions(series, job)

        (told,) = receiver.until(1, 90)
        data = json.loads(told.body)["data"]
        assert (data["job"], data["series"]) == (job.id, series.id)
        assert data["transition"]["type"] == "A"
        assert 6 <= data["transition"]["from_step"] < data["transition"]["to_step"] <= 9

        ended = client.wait(client.finish(job), timeout=60)
        assert (ended.state, ended.following) == ("succeeded", False)
        (transition,) = client.transitions(series, job)
        assert transition.type == "A"
        certain = [event for event in client.events(job) if event.kind.startswith("transition.")]
        assert [event.kind for event in certain] == ["transition.certain"]
        assert len(receiver.received) == 1
