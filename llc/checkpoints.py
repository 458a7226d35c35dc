"""Checkpoint files, read safely: safetensors whose header was checked by us before anything is allocated.

The format: 8 bytes of header length (little-endian), the header as JSON `{name: {dtype, shape, data_offsets}}`,
then the data. What `torch.save` wrote is made such a file first: `llc.confined`.
"""

import json
import math
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llc.errors import InputError
from llc.layout import Layout

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
_MAX_VALUES = 12 * MAX_TENSORS
"""Of a header, as its commas and brackets bound them: JSON of 16 MB can take twenty times that when it is read."""
_LARGE = threading.Lock()
"""One such header at a time, in whichever thread: read, it may take 160 MB."""
_PIECE = 2**20
_NAME = re.compile(r"[A-Za-z0-9_./:\-\[\] ]{1,512}")

# safetensors' dtype → (numpy's, bytes an element). bfloat16, which numpy lacks, is widened by `read_tensors`.
DTYPES: Mapping[str, tuple[str, int]] = {
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


def read_header(path: Path, what: str = "") -> dict[str, TensorEntry]:
    """The tensors that a safetensors file declares, with everything about them checked but their values.

    what: the file in the words of an error; by default the checkpoint of this file's name.
    Raises: InputError with code `bad_safetensors`.
    """
    what = what or called(path)
    with _LARGE if path.stat().st_size > MAX_HEADER_BYTES // 16 else nullcontext():
        return _checked(path, what)


def _checked(path: Path, what: str) -> dict[str, TensorEntry]:
    entries, data_start, size = _read_json(path, what)
    _check_metadata(what, entries.pop("__metadata__", {}))
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


def read_metadata(path: Path, what: str = "") -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors. Raises: InputError `bad_safetensors`."""
    what = what or called(path)
    return _check_metadata(what, _read_json(path, what)[0].get("__metadata__", {}))


def read_tensors(path: Path, what: str = "") -> dict[str, NDArray[np.generic]]:
    """Every tensor of a safetensors file as a read-only numpy array, memory-mapped (bfloat16: widened to float32)."""
    entries = read_header(path, what)
    stored = _stored(path, entries)
    return {name: _widen(stored[name]) if entry.dtype == "BF16" else stored[name] for name, entry in entries.items()}


def pieces(array: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Its elements in order, some at a time: what is mapped need not all be in memory, nor what is made of it."""
    if array.size:
        parts = np.nditer(array, ["external_loop", "buffered"], order="C", buffersize=_PIECE)
        while not parts.finished:
            yield parts[0]
            parts.iternext()


def in_pieces(path: Path, entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, Iterator[NDArray[np.generic]]]]:
    """The values of every tensor of a checked header, some at a time; bfloat16 widened, as `read_tensors` does."""
    for name, array in _stored(path, entries).items():
        yield name, map(_widen, pieces(array)) if entries[name].dtype == "BF16" else pieces(array)


def check_checkpoint(path: Path, layout: Layout, what: str = "") -> None:
    """Refuse a file that is not a checkpoint of a model with this layout, or has values that are not finite."""
    what = what or called(path)
    entries = read_header(path, what)
    layout.check({name: entry.shape for name, entry in entries.items()}, what)
    for name, values in in_pieces(path, entries):
        dtype = DTYPES[entries[name].dtype][0]
        if np.dtype(dtype).kind != "f" and entries[name].dtype != "BF16":
            raise InputError("wrong_dtype", f"{what}: '{name}' is {np.dtype(dtype)}, not floating point", "")
        if lost := sum(int((~np.isfinite(piece)).sum()) for piece in values):
            raise InputError(
                "not_finite",
                f"{what}: '{name}' has {lost} values that are NaN or infinite",
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
    if sum(header.count(mark) for mark in (b",", b"[", b"{")) > _MAX_VALUES:
        raise _bad(what, f"its header has more than {_MAX_VALUES} values")
    try:
        entries = json.loads(header.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        raise _bad(what, f"its header is not JSON: {str(error)[:200]}") from None
    if not isinstance(entries, dict):
        raise _bad(what, "its header is not a JSON object")
    return entries, 8 + length, size


def _entry(what: str, name: str, entry: Any, data_start: int, size: int) -> TensorEntry:
    """One entry of the header, refused unless every field of it holds."""
    if not is_name(name):
        raise _bad(what, f"a tensor is called {name[:80]!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad(what, f"the entry of '{name}' has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _bad(what, f"'{name}' has the type {str(dtype)[:20]!r}; known: {', '.join(DTYPES)}")
    if not naturals(shape, 16) or not naturals(offsets, 2) or len(offsets) != 2 or not _is_shape(shape):
        raise _bad(what, f"'{name}' has a shape or offsets that are no natural numbers")
    start, stop = data_start + offsets[0], data_start + offsets[1]
    if not start <= stop <= size or stop - start != math.prod(shape) * DTYPES[dtype][1]:
        raise _bad(what, f"'{name}' declares {shape} of {dtype} in bytes {start} to {stop} of {size}")
    return TensorEntry(dtype, tuple(shape), start, stop)


def is_name(name: str) -> bool:
    """Whether a tensor may be called this."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def naturals(value: Any, at_most: int) -> bool:
    """Whether this is a list of natural numbers, none of them absurd."""
    return (
        isinstance(value, list)
        and len(value) <= at_most
        and all(type(item) is int and 0 <= item < 2**48 for item in value)
    )


def _is_shape(shape: list[int]) -> bool:
    """Whether numpy can have it: of a tensor without elements, the other dimensions count as well."""
    return math.prod(d or 1 for d in shape) < 2**56


def _stored(path: Path, entries: Mapping[str, TensorEntry]) -> dict[str, NDArray[np.generic]]:
    """The tensors as they lie in the file, mapped."""
    if not entries:
        return {}
    file = np.memmap(path, dtype=np.uint8, mode="r")
    return {
        name: np.asarray(file[entry.start : entry.stop]).view(DTYPES[entry.dtype][0]).reshape(entry.shape)
        for name, entry in entries.items()
    }


def _widen(bfloat16: NDArray[np.generic]) -> NDArray[np.float32]:
    return (bfloat16.astype(np.uint32) << 16).view(np.float32)


def called(path: Path) -> str:
    """A checkpoint's file, in the words of an error."""
    return f"the checkpoint '{path.name}'"


def _check_metadata(what: str, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _bad(what, "its metadata are no texts by name")
    return metadata


def _no_constants(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _bad(what: str, why: str) -> InputError:
    return InputError(
        "bad_safetensors",
        f"{what} is no safetensors file: {why}",
        "write it with safetensors' save_file; a checkpoint may also be of torch.save(model.state_dict(), path)",
    )
