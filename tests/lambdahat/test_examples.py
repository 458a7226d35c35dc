"""What the examples train and record: each reaches the end that its pictures are about."""

import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lambdahat import Client, Recorder
from lambdahat.objects import Checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """An example's names, as a script finds its neighbours."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "common", raising=False)
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))


def recorded(
    client: Client, folder: Path, example: dict[str, Any], steps: Sequence[int], train: Callable[[Recorder], object]
) -> list[Checkpoint]:
    """What a training run has posted."""
    x = np.zeros((4, example["MODEL"].get("num_features", 8)), np.float32)
    model = client.create_model("an example's", example["MODEL"])
    series = client.create_series("an example", model, client.create_dataset("zeros", x=x, y=x))
    with Recorder(client, series, steps, folder=folder / "spool") as recorder:
        train(recorder)
    return list(client.list_checkpoints(series))


def test_the_deep_linear_network_learns_its_singular_values_one_by_one(
    load: Callable[[str], dict[str, Any]], client: Client, tmp_path: Path
) -> None:
    example = load("deep_linear")
    train = example["train"]
    train.__globals__.update(GAIN=0.1, STEPS=12_000)  # a hundred times as near to the end
    random = np.random.default_rng(0)
    task, kept = example["Task"].draw(random), []
    steps = range(0, 12_001, 100)
    posted = recorded(client, tmp_path, example, steps, lambda recorder: kept.extend(train(recorder, task, random)))
    ranks = [checkpoint.metrics["rank"] or 0 for checkpoint in posted]
    assert len(ranks) == len(steps)
    assert ranks == sorted(ranks) == [rank for _, rank, _ in kept]
    assert {0, 1, 3} <= set(ranks)
    learned = [posted[-1].metrics[f"singular_value_{i}"] for i in (1, 2, 3)]
    assert learned == pytest.approx(example["SINGULAR_VALUES"], abs=1e-3)
    # A plateau of rank r curves, in targets of rank r, as many directions as matrices of that rank have.
    last = example["anchors"](task, kept)[-1]
    assert last.label == "rank 3"
    assert (last.curvatures > 0).sum() == 3 * (8 + 8 - 3)


def test_features_take_their_places_in_a_polygon(
    load: Callable[[str], dict[str, Any]], client: Client, tmp_path: Path
) -> None:
    example = load("superposition")
    example["train"].__globals__["STEPS"] = 3500
    torch.manual_seed(3)
    x, ends = example["draw_inputs"](), []
    steps = (0, 1500, 3500)
    posted = recorded(client, tmp_path, example, steps, lambda to: ends.append(example["train"](to, x)))
    assert [checkpoint.metrics["corners"] for checkpoint in posted] == [0, 4, 5]
    end = example["last_anchor"](ends[0], x)
    assert end.label == "5-gon⁺"
    assert end.exact == 8.5  # all of 18 parameters but the rotation
