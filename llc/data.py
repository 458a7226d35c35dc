"""Data sets as named arrays of equal length: read safely, described without being loaded."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llc.checkpoints import read_tensors
from llc.errors import InputError
from llc.settings import Frozen

MAX_ARRAYS = 64


class ArrayInfo(Frozen):
    """What can be said of an array without keeping it."""

    dtype: str
    shape: tuple[int, ...]
    min: float | None = Field(default=None, description="Smallest finite value; null if there is none.")
    max: float | None = None
    finite: bool = True

    @property
    def is_integer(self) -> bool:
        """Whether the values can be class indices or tokens."""
        return self.dtype.startswith(("int", "uint"))


def read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The named arrays of a `.safetensors` file, memory-mapped.

    Raises: InputError if the file is not one, has no array, or arrays of unequal length.
    """
    what = f"the data set '{path.name}'"
    arrays = read_tensors(path, what)
    if not arrays or len(arrays) > MAX_ARRAYS:
        raise InputError("bad_data", f"{what} has {len(arrays)} arrays; 1 to {MAX_ARRAYS} are expected", "")
    lengths = {name: (array.shape[0] if array.ndim else -1) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) < 1:
        raise InputError(
            "unequal_lengths",
            f"the arrays of {what} do not share their first dimension, the samples: {lengths}",
            "store inputs as 'x' and targets as 'y', one row a sample",
        )
    return arrays


def describe(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, ArrayInfo]:
    """Shape, dtype and range of every array."""
    return {name: _describe(array) for name, array in arrays.items()}


def _describe(array: NDArray[np.generic]) -> ArrayInfo:
    finite = np.isfinite(array) if array.dtype.kind == "f" else np.ones(1, dtype=bool)
    all_finite = bool(finite.all())
    values = array if all_finite else array[finite]
    return ArrayInfo(
        dtype=str(array.dtype),
        shape=array.shape,
        min=float(values.min()) if values.size else None,
        max=float(values.max()) if values.size else None,
        finite=all_finite,
    )


def num_samples(arrays: Mapping[str, ArrayInfo]) -> int:
    """n, the number of samples."""
    return next(iter(arrays.values())).shape[0]
