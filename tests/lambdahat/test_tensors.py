"""Arrays of any kind become safetensors that the server reads back as they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lambdahat import LambdahatError
from lambdahat.tensors import to_bytes
from llc.checkpoints import read_header, read_tensors


def read(content: bytes, folder: Path) -> dict[str, Any]:
    path = folder / "file.safetensors"
    path.write_bytes(content)
    return {name: np.array(array) for name, array in read_tensors(path).items()}


def test_numpy_and_torch_give_the_same_bytes() -> None:
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert to_bytes({"w": w}) == to_bytes({"w": torch.nn.Parameter(torch.from_numpy(w.copy()))})


def test_values_survive_whatever_their_strides(tmp_path: Path) -> None:
    w = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    content = to_bytes({"transposed": w.mT, "scalar": np.float64(2.5), "sliced": np.arange(10)[::3]})
    found = read(content, tmp_path)
    np.testing.assert_array_equal(found["transposed"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["sliced"], [0, 3, 6, 9])
    assert found["scalar"].shape == ()
    assert found["scalar"] == 2.5


def test_bfloat16_stays_bfloat16_even_when_tied(tmp_path: Path) -> None:
    shared = torch.tensor([1.5, -2.25], dtype=torch.bfloat16)
    found = read(to_bytes({"a": shared, "b": shared, "c": torch.ones(3)}), tmp_path)
    np.testing.assert_array_equal(found["a"], [1.5, -2.25])
    np.testing.assert_array_equal(found["b"], [1.5, -2.25])
    assert {name: entry.dtype for name, entry in read_header(tmp_path / "file.safetensors").items()} == {
        "a": "BF16",
        "b": "BF16",
        "c": "F32",
    }


@pytest.mark.parametrize("stranger", ["adamw", None, {"lr": 0.1}, np.array(["a"])])
def test_names_what_is_no_array(stranger: Any) -> None:
    with pytest.raises(LambdahatError, match="'optimizer'"):
        to_bytes({"w": np.ones(2), "optimizer": stranger})


def test_refuses_nothing_at_all() -> None:
    with pytest.raises(LambdahatError, match="no arrays"):
        to_bytes({})
