"""Data sets as named arrays of equal length: read safely, described without being loaded."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llc.checkpoints import DTYPES, in_pieces, pieces, read_header, read_tensors
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
    what = _called(path)
    arrays = read_tensors(path, what)
    _check({name: array.shape for name, array in arrays.items()}, what)
    return arrays


def describe_file(path: Path) -> dict[str, ArrayInfo]:
    """What `describe` says of `read_arrays`, with no more than a piece of an array in memory. Raises: as that."""
    what = _called(path)
    entries = read_header(path, what)
    _check({name: entry.shape for name, entry in entries.items()}, what)
    return {
        name: _describe("float32" if entry.dtype == "BF16" else DTYPES[entry.dtype][0], entry.shape, values)
        for (name, values), entry in zip(in_pieces(path, entries), entries.values(), strict=True)
    }


def _called(path: Path) -> str:
    return f"the data set '{path.name}'"


def _check(arrays: Mapping[str, tuple[int, ...]], what: str) -> None:
    if not arrays or len(arrays) > MAX_ARRAYS:
        raise InputError("bad_data", f"{what} has {len(arrays)} arrays; 1 to {MAX_ARRAYS} are expected", "")
    lengths = {name: shape[0] if shape else -1 for name, shape in arrays.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) < 1:
        raise InputError(
            "unequal_lengths",
            f"the arrays of {what} do not share their first dimension, the samples: {lengths}",
            "store inputs as 'x' and targets as 'y', one row a sample",
        )


def describe(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, ArrayInfo]:
    """Shape, dtype and range of every array."""
    return {name: _describe(str(array.dtype), array.shape, pieces(array)) for name, array in arrays.items()}


def _describe(dtype: str, shape: tuple[int, ...], values: Iterator[NDArray[np.generic]]) -> ArrayInfo:
    low, high, all_finite = math.inf, -math.inf, True
    for piece in values:
        finite = piece[np.isfinite(piece)] if piece.dtype.kind == "f" else piece
        all_finite = all_finite and finite.size == piece.size
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    there = low <= high
    return ArrayInfo(
        dtype=str(np.dtype(dtype)),
        shape=shape,
        min=low if there else None,
        max=high if there else None,
        finite=all_finite,
    )


def num_samples(arrays: Mapping[str, ArrayInfo]) -> int:
    """n, the number of samples."""
    return next(iter(arrays.values())).shape[0]
