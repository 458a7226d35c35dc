"""Files of `torch.save`, read without torch and without running anything that stands in them.

The format: a zip of stored entries. `data.pkl` is a pickle of what was saved, in which every tensor says which storage
it views, and how; `data/0`, `data/1`, ... are the storages' bytes; `byteorder` says in which order these lie.

torch's own loader is not used, not even with `weights_only=True`. Every process that reads would have to import torch;
it inflates entries that are compressed, to whatever size; and what it lets a pickle call is a list that grows with its
versions, through which code has run before (CVE-2025-32434). Here a pickle is a program for `_Machine`, all of
whose instructions are in one `match`. None of them calls, imports or looks up anything: the few names that it knows
stand for tuples, dictionaries and descriptions of tensors. What a file declares is held against its size first, and
tensors are views into the file, which is mapped: at no time is more than a piece of one in memory.
"""

import json
import math
import mmap
import pickletools
import re
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from llc.checkpoints import DTYPES, MAX_HEADER_BYTES, MAX_TENSORS, is_name, naturals, pieces
from llc.errors import InputError

MAX_PICKLE_BYTES = 16 * 2**20
MAX_SHARING = 16
"""How often the tensors of a file may use its bytes: tied parameters are written once for each of their names."""

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""What torch before 1.6 began a file with: the pickle of its magic number."""
_ENTRY = re.compile(
    r"(?P<folder>[^/\\\0]{1,255})/"
    r"(?P<name>data\.pkl|data/\d{1,9}|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id)"
)

_STORAGES: Mapping[str, str] = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
_BUILDERS = (
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
)
_TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_NAMES = {*_STORAGES, *_BUILDERS, *(f"torch.{name}" for name in _TYPES)}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which of its keys a training loop's checkpoint may have the state dict."""


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as those of `torch.save` do. (No safetensors file does: its header would be too long.)"""
    with path.open("rb") as file:
        start = file.read(len(_LEGACY))
    return start.startswith(_ZIP) or start == _LEGACY


def bad_torch_file(what: str, why: str) -> InputError:
    """What can't be read, and why."""
    hint = "write it with torch.save(model.state_dict(), path) of torch 1.6 or newer, or with safetensors' save_file"
    return InputError("bad_torch_file", f"{what} is no torch file that can be read: {why}", hint)


def convert(source: BinaryIO, target: BinaryIO, what: str) -> None:
    """Write the state dict of a torch file as a safetensors file: of the same names, types, shapes and values.

    The file holds a dictionary of tensors by name, or has exactly one such as its `state_dict`, `model_state_dict` or
    `model`. Opens one file descriptor, to map `source`. Raises: InputError `bad_torch_file`;
    MemoryError, if it has less than a few hundred MB.
    """
    try:
        entries = _read_directory(source)
        mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        order = _byte_order(mapped, entries)
        views = _state_dict(_Machine(entries).run(_read(mapped, entries, "data.pkl", MAX_PICKLE_BYTES)))
        if sum(view.num_bytes for view in views.values()) > MAX_SHARING * len(mapped):
            raise _RefusedError(f"its tensors view each of its bytes more than {MAX_SHARING} times")
        _write(target, views, {name: view.array(mapped, order) for name, view in views.items()})
    except _RefusedError as refused:
        raise bad_torch_file(what, str(refused)) from None


class _RefusedError(Exception):
    """Why a file can't be read."""


# The zip ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """Where the bytes of an entry lie in the file."""

    start: int
    stop: int


def _read_directory(source: BinaryIO) -> dict[str, _Entry]:
    """The entries by name, without the folder that they are all in; apart from each other, and inside the file."""
    try:
        infos = zipfile.ZipFile(source).infolist()
    # Of what is no zip, Python's reader raises whatever it stumbles over.
    except Exception as error:
        source.seek(0)
        if source.read(len(_LEGACY)) == _LEGACY:
            raise _RefusedError("it is of torch's format before 1.6") from None
        raise _RefusedError(f"it is no whole zip: {str(error)[:200]}") from None
    if len(infos) > MAX_TENSORS + len(_ENTRY.pattern):
        raise _RefusedError(f"it has {len(infos)} entries; {MAX_TENSORS} tensors are allowed")
    found: dict[str, _Entry] = {}
    folders: set[str] = set()
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        match = _ENTRY.fullmatch(info.orig_filename)
        if match is None:
            raise _RefusedError(f"it has an entry {info.orig_filename[:80]!r}, which torch.save does not write")
        folders.add(match["folder"])
        if len(folders) > 1 or match["name"] in found:
            raise _RefusedError(f"its entry {info.orig_filename[:80]!r} stands twice, or beside the others' folder")
        entry = _locate(source, info)
        if info.header_offset < end:
            raise _RefusedError(f"its entry {info.orig_filename[:80]!r} lies over another")
        found[match["name"]], end = entry, entry.stop
    if "data.pkl" not in found:
        raise _RefusedError("it has no data.pkl")
    return found


def _locate(source: BinaryIO, info: zipfile.ZipInfo) -> _Entry:
    """An entry's bytes. Its own header and the directory have to agree on what it is."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise _RefusedError(f"its entry {info.orig_filename[:80]!r} is compressed, which torch.save never does")
    if info.flag_bits & 0x2041 or stat.S_ISLNK(info.external_attr >> 16):
        raise _RefusedError(f"its entry {info.orig_filename[:80]!r} is encrypted or a link")
    size = source.seek(0, 2)
    source.seek(max(info.header_offset, 0))  # less than 0: bytes are missing before the directory
    header = source.read(30)
    length, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    name = source.read(length)
    start = info.header_offset + 30 + length + extra
    is_there = header[:4] == _ZIP and name == info.orig_filename.encode() and info.header_offset >= 0
    if not is_there or start + info.file_size > size:
        raise _RefusedError(f"its entry {info.orig_filename[:80]!r} is not where, or not as large as, it is said to be")
    return _Entry(start, start + info.file_size)


def _read(mapped: mmap.mmap, entries: Mapping[str, _Entry], name: str, at_most: int) -> bytes:
    entry = entries[name]
    if entry.stop - entry.start > at_most:
        raise _RefusedError(f"its {name} has {entry.stop - entry.start} bytes; {at_most} are allowed")
    return mapped[entry.start : entry.stop]


def _byte_order(mapped: mmap.mmap, entries: Mapping[str, _Entry]) -> Literal["<", ">"]:
    """As numpy says it. Files without the entry are of a torch that wrote little-endian only."""
    said = _read(mapped, entries, "byteorder", 16) if "byteorder" in entries else b"little"
    if said not in (b"little", b"big"):
        raise _RefusedError(f"its byte order is {said!r}")
    return "<" if said == b"little" else ">"


# The pickle ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Storage:
    """Elements of one type that lie side by side in the file."""

    dtype: str
    start: int
    numel: int


@dataclass(frozen=True)
class _View:
    """A tensor: which elements of a storage it is made of. Inside it, and no element twice."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = naturals(list(self.shape), 16) and naturals(list(self.strides), 16) and naturals([self.offset], 1)
        if not numbers or len(self.shape) != len(self.strides) or math.prod(d or 1 for d in self.shape) >= 2**56:
            raise _RefusedError("a tensor of it has a shape, strides or an offset that can't be")
        said = f"a tensor of shape {list(self.shape)}, strides {list(self.strides)} and offset {self.offset}"
        extents = [(stride, d) for stride, d in zip(self.strides, self.shape, strict=True) if d > 1]
        reach = 0
        for stride, d in sorted(extents):
            if stride <= reach and self.numel:
                raise _RefusedError(f"{said} has elements twice; save its .clone()")
            reach += stride * (d - 1)
        if self.offset + (reach + 1 if self.numel else 0) > self.storage.numel:
            raise _RefusedError(f"{said} goes beyond its storage of {self.storage.numel} elements")

    @property
    def numel(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Of its elements."""
        return self.numel * DTYPES[self.storage.dtype][1]

    def array(self, mapped: mmap.mmap, order: Literal["<", ">"]) -> NDArray[np.generic]:
        """The elements, in the file's byte order."""
        name, size = DTYPES[self.storage.dtype]
        dtype = np.dtype(name).newbyteorder(order)
        if not self.numel:
            return np.empty(self.shape, dtype)
        strides = [stride * size for stride in self.strides]
        return np.ndarray(self.shape, dtype, mapped, self.storage.start + self.offset * size, strides)


@dataclass(frozen=True)
class _Name:
    """Something of Python's or torch's that the pickle named. It stays a name."""

    name: str


class _Machine:
    """Runs pickles that describe tensors, and no others."""

    def __init__(self, entries: Mapping[str, _Entry]) -> None:
        self._entries = entries
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """What the pickle builds: dictionaries, lists, tuples, numbers, texts, `_View`s and the like."""
        try:
            for opcode, argument, _ in pickletools.genops(program):
                self._step(opcode.name, argument)
            return self._stack.pop()
        # pickletools: ValueError. An empty stack or list of marks: IndexError; what was never put: KeyError.
        except (ValueError, LookupError, OverflowError) as error:
            raise _RefusedError(f"its pickle is damaged: {type(error).__name__} {str(error)[:200]}") from None

    def _step(self, instruction: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[instruction]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple([stack.pop() for _ in range(int(instruction[-1]))][::-1]))
            case "TUPLE":
                stack.append(tuple(self._to_mark()))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = self._to_mark()
                _set_items(stack[-1], items)
            case "APPEND":
                _append(stack[-2], [stack.pop()])
            case "APPENDS":
                items = self._to_mark()
                _append(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_named(module, name))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                arguments, builder = stack.pop(), stack.pop()
                stack.append(_built(builder, arguments))
            case "BUILD":  # attributes, such as the `_metadata` of a state dict: nothing here has any
                stack.pop()
            case _:
                raise _RefusedError(f"its pickle has the instruction {instruction}, which no state dict needs")

    def _to_mark(self) -> list[Any]:
        """What was put on the stack since the last mark, taken from it."""
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _storage(self, said: Any) -> _Storage:
        match said:
            case ("storage", _Name(name), str(key), str(), int(numel)) if name in _STORAGES:
                entry = self._entries.get(f"data/{key}")
                dtype = _STORAGES[name]
                if entry is None or entry.stop - entry.start != numel * DTYPES[dtype][1]:
                    raise _RefusedError(f"it has no storage {key[:20]!r} of {numel:.20g} elements of {dtype}")
                return _Storage(dtype, entry.start, numel)
        raise _RefusedError("a storage of it is described in a way that torch.save does not")


def _named(module: Any, name: Any) -> _Name:
    full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "what is no text"
    if full not in _NAMES:
        raise _RefusedError(f"it names {full[:80]!r}, which is no part of a state dict")
    return _Name(full)


def _built(builder: Any, arguments: Any) -> Any:
    """In place of calling it."""
    match builder, arguments:
        case _Name("collections.OrderedDict"), ():
            return {}
        case _Name("torch.Size"), (tuple() | list() as sizes,):
            return tuple(sizes)
        case _Name("torch.device"), tuple():
            return None
        case _Name("torch._utils._rebuild_parameter"), (_View() as view, _, _):
            return view
        case (
            _Name("torch._utils._rebuild_tensor_v2"),
            (_Storage() as storage, offset, tuple() as shape, tuple() as strides, _, _, *flags),
        ) if not any(flags):  # a conjugate or a negative of what is stored
            return _View(storage, offset, shape, strides)
    raise _RefusedError(f"it would build {getattr(builder, 'name', 'something')!r} of what is not right for that")


def _set_items(target: Any, items: list[Any]) -> None:
    keys, values = items[::2], items[1::2]
    if type(target) is not dict or len(keys) != len(values):
        raise _RefusedError("its pickle sets items of what is no dictionary")
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, str | int | float | None):  # of no depth, so that it can be hashed
            raise _RefusedError("a dictionary of it has a key that is neither text nor number")
        if key in target:
            raise _RefusedError(f"a dictionary of it has the key {key!r:.80} twice")
        target[key] = value


def _append(target: Any, items: Iterable[Any]) -> None:
    if type(target) is not list:
        raise _RefusedError("its pickle appends to what is no list")
    target.extend(items)


# The state dict -----------------------------------------------------------------------------------------------------


def _state_dict(saved: Any) -> dict[str, _View]:
    """The one dictionary of tensors in what was saved."""
    if not isinstance(saved, dict):
        raise _RefusedError(f"it holds {_kind(saved)}, not a dictionary of tensors by name")
    if not any(isinstance(value, _View) for value in saved.values()):
        inner = [key for key in _WRAPPERS if isinstance(saved.get(key), dict)]
        if len(inner) != 1:
            keys = ", ".join(f"{key!r:.40}" for key in [*saved][:10])
            raise _RefusedError(f"of its keys ({keys}) not exactly one of {', '.join(_WRAPPERS)} is a state dict")
        saved = saved[inner[0]]
    for name, value in saved.items():
        if not isinstance(name, str) or not is_name(name):
            raise _RefusedError(f"a tensor is called {name!r:.80}")
        if not isinstance(value, _View):
            raise _RefusedError(f"its '{name[:80]}' is {_kind(value)}, not a tensor")
    if not 0 < len(saved) <= MAX_TENSORS:
        raise _RefusedError(f"it has {len(saved)} tensors; 1 to {MAX_TENSORS} are allowed")
    return saved


def _kind(value: Any) -> str:
    """In words: never its text, which may be endless."""
    return {dict: "a dictionary", list: "a list", tuple: "a tuple", str: "a text", _View: "one tensor"}.get(
        type(value), "a number or nothing"
    )


def _write(target: BinaryIO, views: Mapping[str, _View], arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """As safetensors: tensors one after the other, the largest elements first, so that all are aligned."""
    order = sorted(views, key=lambda name: -DTYPES[views[name].storage.dtype][1])
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        view = views[name]
        header[name] = {
            "dtype": view.storage.dtype,
            "shape": view.shape,
            "data_offsets": [end, end := end + view.num_bytes],
        }
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER_BYTES:
        raise _RefusedError("the names and shapes of its tensors take too much room")
    target.write(len(raw).to_bytes(8, "little") + raw)
    for name in order:
        little = np.dtype(DTYPES[views[name].storage.dtype][0])
        target.writelines(np.ascontiguousarray(piece, little).data for piece in pieces(arrays[name]))
    target.flush()
