"""A data set's file is described as its arrays are, a piece at a time."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llc.data import ArrayInfo, describe, describe_file, read_arrays
from llc.errors import InputError


def test_a_file_is_described_as_its_arrays_are(tmp_path: Path) -> None:
    many = torch.linspace(-3, 5, 3 * 2**20)  # of more than one piece
    arrays = {
        "x": many,
        "half": many.half(),
        "b": many.bfloat16(),
        "ends": torch.cat([torch.tensor([float("nan"), float("-inf")]), many[2:]]),
        "lost": torch.full_like(many, float("inf")),
        "y": torch.arange(len(many)) - 7,
        "mask": many > 0,
        "nothing": torch.zeros(len(many), 0),
    }
    save_file(arrays, tmp_path / "data")
    found = describe_file(tmp_path / "data")
    assert found == describe(read_arrays(tmp_path / "data"))
    n = len(many)
    assert found["b"] == ArrayInfo(dtype="float32", shape=(n,), min=-3, max=5)
    assert found["ends"] == ArrayInfo(dtype="float32", shape=(n,), min=float(many[2]), max=5, finite=False)
    assert found["lost"] == ArrayInfo(dtype="float32", shape=(n,), finite=False)
    assert found["y"] == ArrayInfo(dtype="int64", shape=(n,), min=-7, max=n - 8)
    assert found["mask"] == ArrayInfo(dtype="bool", shape=(n,), min=0, max=1)
    assert found["nothing"] == ArrayInfo(dtype="float32", shape=(n, 0))


def test_it_is_refused_alike(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3), "y": torch.zeros(2)}, tmp_path / "data")
    for read in (read_arrays, describe_file):
        with pytest.raises(InputError, match="data set 'data' do not share") as refused:
            read(tmp_path / "data")
        assert refused.value.code == "unequal_lengths"
