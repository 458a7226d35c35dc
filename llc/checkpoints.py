"""Checkpoint files, read safely: safetensors whose header was checked by us before anything is allocated.

The format: 8 bytes of header length (little-endian), the header as JSON `{name: {dtype, shape, data_offsets}}`,
then the data.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llc.errors import InputError
from llc.layout import Layout

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
_NAME = re.compile(r"[A-Za-z0-9_./:\-\[\] ]{1,512}")

# safetensors' dtype → (numpy's, bytes an element). bfloat16, which numpy lacks, is widened by `read_tensors`.
_DTYPES: Mapping[str, tuple[str, int]] = {
    "F64": ("<f8", 8),
    "F32": ("<f4", 4),
    "F16": ("<f2", 2),
    "BF16": ("<u2", 2),
    "I64": ("<i8", 8),
    "I32": ("<i4", 4),
    "I16": ("<i2", 2),
    "I8": ("|i1", 1),
    "U8": ("|u1", 1),
    "BOOL": ("|b1", 1),
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: its type, shape and where its bytes lie, counted from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path, what: str = "the checkpoint") -> dict[str, TensorEntry]:
    """The tensors that a safetensors file declares, with everything about them checked but their values.

    Raises: InputError with code `bad_safetensors`.
    """
    entries, data_start, size = _read_json(path, what)
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise _bad(what, f"it declares {len(entries)} tensors; {MAX_TENSORS} are allowed")
    tensors = {name: _entry(what, name, entry, data_start, size) for name, entry in entries.items()}
    end = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if tensor.start != end:
            raise _bad(what, f"the bytes of '{name}' overlap another tensor's or leave a gap")
        end = tensor.stop
    if end != size:
        raise _bad(what, f"{size - end} bytes follow the last tensor")
    return tensors


def read_metadata(path: Path, what: str = "the checkpoint") -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors. Raises: InputError `bad_safetensors`."""
    metadata = _read_json(path, what)[0].get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _bad(what, "its metadata are no texts by name")
    return metadata


def read_tensors(path: Path, what: str = "the checkpoint") -> dict[str, NDArray[np.generic]]:
    """Every tensor of a safetensors file as a read-only numpy array, memory-mapped (bfloat16: widened to float32)."""
    entries = read_header(path, what)
    if not entries:
        return {}
    file = np.memmap(path, dtype=np.uint8, mode="r")
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, entry in entries.items():
        array = np.asarray(file[entry.start : entry.stop]).view(_DTYPES[entry.dtype][0]).reshape(entry.shape)
        if entry.dtype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array
    return arrays


def check_checkpoint(path: Path, layout: Layout) -> None:
    """Refuse a file that is not a checkpoint of a model with this layout, or has values that are not finite."""
    layout.check({name: entry.shape for name, entry in read_header(path).items()})
    for name, array in read_tensors(path).items():
        if array.dtype.kind != "f":
            raise InputError("wrong_dtype", f"the checkpoint's '{name}' is {array.dtype}, not floating point", "")
        if not np.isfinite(array).all():
            raise InputError(
                "not_finite",
                f"the checkpoint's '{name}' has {int((~np.isfinite(array)).sum())} values that are NaN or infinite",
                "training diverged at or before this step; leave the checkpoint out",
            )


def read_parameters(path: Path, layout: Layout) -> NDArray[np.float32]:
    """The flat vector w (d,) of a checkpoint. Raises: InputError if the file doesn't have this layout."""
    tensors = read_tensors(path)
    layout.check({name: array.shape for name, array in tensors.items()})
    w = np.empty(layout.num_parameters, dtype=np.float32)
    for name, where, _ in layout.blocks():
        w[where] = tensors[name].reshape(-1)
    return w


def _read_json(path: Path, what: str) -> tuple[dict[str, Any], int, int]:
    """The header, where the data start, and the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(8)
        length = int.from_bytes(raw, "little")
        if len(raw) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise _bad(what, f"it has {size} bytes and would have a header of {length}")
        header = file.read(length)
    try:
        entries = json.loads(header, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _bad(what, f"its header is not JSON: {str(error)[:200]}") from None
    if not isinstance(entries, dict):
        raise _bad(what, "its header is not a JSON object")
    return entries, 8 + length, size


def _entry(what: str, name: str, entry: Any, data_start: int, size: int) -> TensorEntry:
    """One entry of the header, refused unless every field of it holds."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise _bad(what, f"a tensor is called {name[:80]!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad(what, f"the entry of '{name}' has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _bad(what, f"'{name}' has the type {str(dtype)[:20]!r}; known: {', '.join(_DTYPES)}")
    if not _naturals(shape, 16) or not _naturals(offsets, 2) or len(offsets) != 2:
        raise _bad(what, f"'{name}' has a shape or offsets that are no natural numbers")
    start, stop = data_start + offsets[0], data_start + offsets[1]
    if not start <= stop <= size or stop - start != math.prod(shape) * _DTYPES[dtype][1]:
        raise _bad(what, f"'{name}' declares {shape} of {dtype} in bytes {start} to {stop} of {size}")
    return TensorEntry(dtype, tuple(shape), start, stop)


def _naturals(value: Any, at_most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= at_most
        and all(type(item) is int and 0 <= item < 2**48 for item in value)
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _bad(what: str, why: str) -> InputError:
    return InputError(
        "bad_safetensors", f"{what} is no safetensors file: {why}", "write it with safetensors' save_file"
    )
