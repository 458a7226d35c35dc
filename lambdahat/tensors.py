"""Named arrays to safetensors. Tensors of any library are taken by what they can do; none is imported."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from lambdahat.errors import LambdahatError


def to_bytes(arrays: Mapping[str, Any]) -> bytes:
    """A safetensors file of numpy arrays, torch tensors (any device, with or without gradient) or what numpy can read.

    The same arrays give the same bytes. Raises: LambdahatError, naming what can't be written.
    """
    if not arrays:
        raise LambdahatError("there are no arrays to write", "pass a state dict, or arrays by name")
    if any(_is_bfloat16(value) for value in arrays.values()):
        return _bfloat16_to_bytes(arrays)
    return safetensors.numpy.save({name: to_numpy(name, value) for name, value in arrays.items()})


def to_numpy(name: str, value: Any) -> NDArray[Any]:
    """A contiguous copy as a numpy array. Raises: LambdahatError if it holds no numbers."""
    if _is_tensor(value):
        value = value.detach().cpu().numpy()
    array = np.array(value, order="C", copy=True)
    if array.dtype.kind not in "biuf":
        raise LambdahatError(
            f"'{name}' is {type(value).__name__} of {array.dtype}, not an array of numbers",
            "leave out what is no parameter, such as an optimizer's settings",
        )
    return array


def _bfloat16_to_bytes(arrays: Mapping[str, Any]) -> bytes:
    """numpy has no bfloat16; whoever passes a tensor of it has torch loaded already."""
    from safetensors.torch import save

    strangers = [name for name, value in arrays.items() if not _is_tensor(value)]
    if strangers:
        raise LambdahatError(f"'{strangers[0]}' is no tensor, while others are bfloat16", "pass all of them as tensors")
    return save({name: value.detach().cpu().clone().contiguous() for name, value in arrays.items()})


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")


def _is_bfloat16(value: Any) -> bool:
    return _is_tensor(value) and str(value.dtype) == "torch.bfloat16"
