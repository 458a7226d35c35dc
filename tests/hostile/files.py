"""Files that are made to harm who reads them: each a few lines that build one. None may be taken, none may run.

Those that would run code would make the file CANARY.
"""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from tests.api.lab import data, parameters

CANARY = Path("/tmp/lambdahat-canary")
"""What must never be there."""

Build = Callable[[], bytes]
FILES: dict[str, Build] = {}
"""By name."""


def _file(build: Build) -> Build:
    FILES[build.__name__.strip("_").replace("_", " ")] = build
    return build


# safetensors --------------------------------------------------------------------------------------------------------


def safetensors(header: Any, payload: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (JSON, or these very bytes), and this said of its length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + payload


def entry(shape: list[Any], *offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    """Of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def _good(**replaced: Any) -> dict[str, Any]:
    """The header of a good checkpoint, which has 26 numbers, with other entries."""
    shapes = {"layers.0.weight": [4, 3], "layers.0.bias": [4], "layers.1.weight": [2, 4], "layers.1.bias": [2]}
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = entry(shape, end, end := end + 4 * int(np.prod(shape)))
    return {**header, **{name.replace("_", "."): value for name, value in replaced.items()}}


_VALUES = b"\0" * 104


def _safetensors_of(name: str, header: Any, payload: bytes = _VALUES, length: int | None = None) -> None:
    FILES[name] = lambda: safetensors(header, payload, length)


_safetensors_of("a header longer than the file", _good(), length=10_000)
_safetensors_of("a header of 2^63 bytes", _good(), length=2**63)
_safetensors_of("a header of 2^64 - 1 bytes", _good(), length=2**64 - 1)
_safetensors_of("a header of no bytes", _good(), length=0)
_safetensors_of("a header one byte short", _good(), length=len(json.dumps(_good())) - 1)
_safetensors_of("cut in the data", _good(), _VALUES[:-1])
_safetensors_of("data too many", _good(), _VALUES + b"\0" * 1000)
_safetensors_of("tensors over each other", _good(layers_0_bias=entry([4], 40, 56)))
_safetensors_of("all tensors at the same place", {f"a{i}": entry([26], 0, 104) for i in range(1000)})
_safetensors_of("a gap between tensors", _good(layers_1_bias=entry([2], 100, 108)), _VALUES + b"\0" * 4)
_safetensors_of("offsets backwards", _good(layers_0_bias=entry([4], 64, 48)))
_safetensors_of("negative offsets", _good(layers_0_bias=entry([4], -64, -48)))
_safetensors_of("offsets of 2^64", _good(layers_0_bias=entry([4], 2**64, 2**64 + 16)))
_safetensors_of("offsets of 4000 digits", _good(layers_0_bias=entry([4], 10**4000, 10**4000 + 16)))
_safetensors_of("offsets of 5000 digits", b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[' + b"9" * 5000 + b",1]}}")
_safetensors_of("fractional offsets", _good(layers_0_bias=entry([4], 48.0, 64.0)))
_safetensors_of("offsets true and false", {"a": entry([1], False, True, dtype="U8")}, b"\0")
_safetensors_of("offsets NaN", _good(layers_0_bias=entry([4], float("nan"), float("inf"))))
_safetensors_of("NaN in the metadata", {"__metadata__": {"a": float("nan")}, **_good()})
_safetensors_of("metadata of numbers", {"__metadata__": {"step": 3}, **_good()})
_safetensors_of("metadata of lists", {"__metadata__": [["a"]], **_good()})
_safetensors_of("a huge shape", {"layers.0.weight": entry([2**40, 2**40], 0, 104)})
_safetensors_of("a shape that overflows to the right size", {"layers.0.weight": entry([2**32, 2**32, 26], 0, 104)})
_safetensors_of("huge and without elements", {"layers.0.weight": entry([2**47, 2**47, 0], 0, 0)}, b"")
_safetensors_of("a shape of a thousand dimensions", {"layers.0.weight": entry([1] * 1000, 0, 4)}, b"\0" * 4)
_safetensors_of("a negative shape", _good(layers_0_weight=entry([-4, -3], 0, 48)))
_safetensors_of("a shape of texts", _good(layers_0_weight=entry(["4", "3"], 0, 48)))
_safetensors_of("a shape of nothing", _good(layers_0_weight={"dtype": "F32", "shape": None, "data_offsets": [0, 48]}))
_safetensors_of("an unknown type", _good(layers_0_bias=entry([4], 48, 64, dtype="F4")))
_safetensors_of("a type that is a list", _good(layers_0_bias=entry([4], 48, 64, dtype=["F32"])))
_safetensors_of("a type of a megabyte", _good(layers_0_bias=entry([4], 48, 64, dtype="F" * 2**20)))
_safetensors_of("a field too many", _good(layers_0_bias={**entry([4], 48, 64), "file": "/etc/passwd"}))
_safetensors_of("an entry that is a number", _good(layers_0_bias=4))
_safetensors_of("a header that is a list", [_good()])
_safetensors_of("a header that is null", b"null")
_safetensors_of("a header in UTF-16", json.dumps(_good()).encode("utf-16"))
_safetensors_of("a header not in UTF-8", b'{"\xff\xfe": 1}')
_safetensors_of("a header of deep lists", b"[" * 200_000 + b"]" * 200_000)
_safetensors_of("a header of deep dictionaries", b'{"a":' * 200_000 + b"1" + b"}" * 200_000)
_safetensors_of("a header of a million lists", b'{"a":[' + b"[]," * 900_000 + b"[]]}", b"")
_safetensors_of("a key twice", b'{"a":%b,"a":%b}' % ((json.dumps(entry([26], 0, 104)).encode(),) * 2))
_safetensors_of("a field twice", b'{"a":{"dtype":"F32","dtype":"F32","shape":[26],"data_offsets":[0,104]}}')
_safetensors_of("100 001 tensors", {f"{i:x}": entry([0], 0, 0, dtype="U8") for i in range(100_001)}, b"")
for _what, _name in {
    "a way out of the folder": "../../../../etc/cron.d/x",
    "NUL": "layers.0\0.weight",
    "control characters": "layers\r\n\x1b[2J.weight",
    "half a character": "layers.\ud800.weight",
    "right to left": "layers.\u202e.weight",
    "100 000 letters": "w" * 100_000,
    "nothing": "",
    "markup": "<script>alert(1)</script>",
}.items():
    _safetensors_of(f"a name of {_what}", {_name: entry([26], 0, 104)})


@_file
def _tensors_without_elements() -> bytes:
    return save({name: np.zeros((0, *array.shape), np.float32) for name, array in parameters().items()})


@_file
def _values_that_are_no_numbers() -> bytes:
    """Quiet and signalling, of both signs: as weights, and as a data set's inputs no model can be evaluated on."""
    patterns = np.array([0x7FC0DEAD, 0x7F80DEAD, 0xFFC00001, 0xFF800001], np.uint32).view(np.float32)
    return save({**parameters(), "layers.0.bias": patterns})


# Other formats ------------------------------------------------------------------------------------------------------


@_file
def _an_empty_file() -> bytes:
    return b""


@_file
def _one_byte() -> bytes:
    return b"P"


@_file
def _a_picture() -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0) + b"\0" * 100


@_file
def _a_gzip_bomb() -> bytes:
    return gzip.compress(b"\0" * 2**24)


@_file
def _a_tar_with_a_link() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        link = tarfile.TarInfo("data.pkl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return file.getvalue()


@_file
def _npz_with_objects() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.array([_Runs()], dtype=object), y=np.zeros(1))
    return file.getvalue()


@_file
def _a_bare_pickle() -> bytes:
    return pickle.dumps(_Runs())


@_file
def _an_empty_zip() -> bytes:
    return zipped({})


# The zip of a torch file --------------------------------------------------------------------------------------------


class _Runs:
    """What a pickle of this does is to call open(CANARY, "w")."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(CANARY), "w")


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip, its entries in the folder `archive`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, raw in entries.items():
            archive.writestr(f"archive/{name}", raw)
    return file.getvalue()


def text(value: str) -> bytes:
    """Pushes it."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + len(raw).to_bytes(4, "little") + raw


def number(value: int) -> bytes:
    """Pushes it."""
    raw = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tensor(
    shape: tuple[int, ...] = (26,),
    strides: tuple[int, ...] = (1,),
    offset: int = 0,
    numel: int = 26,
    storage: str = "FloatStorage",
    key: str = "0",
) -> bytes:
    """Pushes a tensor."""
    about = text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + number(numel)
    sizes = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (shape, strides))
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n((" + about + b"tQ" + number(offset) + sizes + b"\x89" + hooks + b"tR"


def state(*values: bytes, names: tuple[str, ...] = ("layers.0.weight", "b", "c", "d")) -> bytes:
    """The pickle of a dictionary of these."""
    items = b"".join(text(name) + value for name, value in zip(names, values, strict=False))
    return b"\x80\x02}(" + items + b"u."


def torch_file(program: bytes, storage: bytes = _VALUES, **entries: bytes) -> bytes:
    """As torch writes it, with this pickle."""
    return zipped({"data.pkl": program, "byteorder": b"little", "data/0": storage, "version": b"3\n", **entries})


def _torch_of(name: str, *values: bytes, **options: Any) -> None:
    FILES[name] = lambda: torch_file(state(*values), **options)


def _program_of(name: str, program: bytes) -> None:
    FILES[name] = lambda: torch_file(b"\x80\x02" + program)


_CALL = text(str(CANARY)) + text("w")
_program_of("a pickle that calls by GLOBAL and REDUCE", b"c__builtin__\nopen\n(" + _CALL + b"tR.")
_program_of(
    "a pickle that calls by STACK GLOBAL", b"\x80\x04" + text("builtins") + text("open") + b"\x93(" + _CALL + b"tR."
)
_program_of("a pickle that calls by INST", b"(" + _CALL + b"ibuiltins\nopen\n.")
_program_of("a pickle that calls by OBJ", b"(cbuiltins\nopen\n" + _CALL + b"o.")
_program_of("a pickle that calls by NEWOBJ", b"cbuiltins\nopen\n(" + _CALL + b"t\x81.")
_program_of("a pickle that calls by EXT", b"\x82\x01(" + _CALL + b"tR.")
_program_of("a pickle that calls the system", b"cposix\nsystem\n(" + text(f"touch {CANARY}") + b"tR.")
_program_of("a pickle that evaluates", b"cbuiltins\neval\n(" + text(f"open({str(CANARY)!r}, 'w')") + b"tR.")
_program_of(
    "a pickle with a dotted name",
    b"\x80\x04" + text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.",
)
_program_of(
    "a pickle that sets attributes by BUILD",
    b"ccollections\nOrderedDict\n)R}" + text("__setstate__") + b"cbuiltins\nopen\nsb" + text(str(CANARY)) + b"b.",
)
_program_of("a pickle that imports a module of torch", b"ctorch.hub\nload\n(" + text("evil/repo") + text("x") + b"tR.")
_program_of("a pickle that reads a file as a storage", b"ctorch.storage\n_load_from_bytes\n(C\x04\x80\x04N.tR.")
FILES["a pickle of an object that runs"] = lambda: torch_file(pickle.dumps({"state_dict": _Runs()}, protocol=2))
FILES["code beside good tensors"] = lambda: torch_file(
    state(tensor(), b"cposix\nsystem\n(" + text(f"touch {CANARY}") + b"tR")
)
_program_of("a cyclic dictionary", b"}q\x00" + text("model") + b"h\x00s.")
_program_of("a pickle of deep tuples", b")" + b"\x85" * 1_000_000 + b".")
_program_of("a dictionary with a deep key", b"}" + b")" + b"\x85" * 1_000_000 + b"Ns.")
_program_of("a pickle of deep marks", b"(" * 1_000_000 + b"t" * 1_000_000 + b".")
_program_of("a memo of 2^32 places", b"}r\xff\xff\xff\xff.")
_BOMB = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(200))
"""A tuple of twice the one before, 200 times."""
_program_of("a memo bomb", _BOMB + b".")
_program_of("a memo bomb as a key", b"}" + _BOMB + b"Ns.")
_program_of("a memo bomb as a model", b"}" + text("model") + _BOMB + b"s.")
_program_of("a text of 4 GB", b"X\xff\xff\xff\xffabc.")
_program_of("a text of 2^63 bytes", b"\x80\x04\x8d" + (2**63 - 1).to_bytes(8, "little") + b"abc.")
_program_of("a number of 2 GB", b"\x8b\xff\xff\xff\x7fabc.")
_program_of("a frame of 2^63 bytes", b"\x80\x04\x95" + (2**63 - 1).to_bytes(8, "little") + b"}.")
_program_of("a pickle without an end", b"}" * 1000)
_program_of("a pickle of nothing but its end", b".")
_program_of("a pickle with an empty stack", b"00000.")
_program_of("a pickle with a text as the first protocol wrote it", b"Vlayers.0.weight\n.")
_program_of("a pickle that reads what it never put", b"h\x07.")
FILES["no pickle"] = lambda: zipped({"data/0": _VALUES})
FILES["an empty pickle"] = lambda: torch_file(b"")
_torch_of("a stride of nought", tensor((2**40,), (0,), 0))
_torch_of("a small stride of nought", tensor((4, 3), (0, 1), 0))
_torch_of("overlapping rows", tensor((4, 3), (1, 1), 0))
_torch_of("a negative stride", tensor((4, 3), (-3, 1), 11))
_torch_of("a negative offset", tensor((4, 3), (3, 1), -1))
_torch_of("an offset beyond the storage", tensor((4, 3), (3, 1), 2**40))
_torch_of("one element beyond the storage", tensor((4, 3), (3, 1), 15))
_torch_of("more strides than dimensions", tensor((4, 3), (3, 1, 1), 0))
_DEEP = b")" + b"\x85" * 100_000
for _what, _shape in {"deep tuples": _DEEP, "a memo bomb": _BOMB}.items():
    _about = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(26) + b"tQK\x00"
    _torch_of(f"a shape of {_what}", b"ctorch._utils\n_rebuild_tensor_v2\n((" + _about + _shape + _shape + b"\x89}tR")
    _torch_of(f"a storage described by {_what}", _shape + b"Q")
    _torch_of(f"a parameter of {_what}", b"ctorch._utils\n_rebuild_parameter\n" + _shape + b"\x89}\x87R")
_torch_of("a shape that overflows", tensor((2**32, 2**32), (2**32, 1), 0))
_torch_of("a storage larger than its entry", tensor((4, 3), (3, 1), numel=2**40))
_torch_of("a storage of negative length", tensor((4, 3), (3, 1), numel=-26))
_torch_of("a storage that is not there", tensor((4, 3), (3, 1), key="1"))
_torch_of("a storage outside the archive", tensor((4, 3), (3, 1), key="../../../../etc/passwd"))
_torch_of("a storage of another type", tensor((4, 3), (3, 1), storage="DoubleStorage"))
_torch_of("an untyped storage", tensor((4, 3), (3, 1), storage="UntypedStorage"))
FILES["a tensor's name twice"] = lambda: torch_file(state(tensor((26,), (1,)), tensor(), names=("a", "a")))
FILES["one storage under 1000 names"] = lambda: torch_file(
    state(*(tensor(),) * 1000, names=tuple(map(str, range(1000)))), b"\0" * 104
)
for _what, _name in {
    "a way out": "../../x",
    "half a character": "\ud800",
    "NUL": "a\0b",
    "10^6 letters": "w" * 10**6,
}.items():
    FILES[f"a tensor of torch called {_what}"] = lambda name=_name: torch_file(state(tensor(), names=(name,)))
FILES["an unknown byte order"] = lambda: torch_file(state(tensor()), byteorder=b"middle")


@_file
def _a_zip_bomb() -> bytes:
    """1000 times as large when inflated."""
    return zipped({"data.pkl": state(tensor((2**19,), (1,), 0, 2**19)), "data/0": b"\0" * 2**21}, zipfile.ZIP_DEFLATED)


@_file
def _a_deflated_pickle() -> bytes:
    return zipped({"data.pkl": b"\x80\x02" + b"}" * 2**24 + b"."}, zipfile.ZIP_DEFLATED)


def _patched(content: bytes, name: str, signature: bytes, at: int, value: bytes) -> bytes:
    """With other bytes in the header of an entry: its own (PK 3 4), or the directory's (PK 1 2)."""
    raw, start = bytearray(content), -1
    while (start := raw.find(signature, start + 1)) >= 0:
        names = start + (30 if signature == b"PK\x03\x04" else 46)
        if raw[names:].startswith(f"archive/{name}".encode()):
            raw[start + at : start + at + len(value)] = value
            return bytes(raw)
    raise AssertionError(name)


_LOCAL, _DIRECTORY = b"PK\x03\x04", b"PK\x01\x02"
_GIGABYTE = (2**30).to_bytes(4, "little")


def _zip_of(name: str, entry: str, *changes: tuple[bytes, int, bytes]) -> None:
    def build() -> bytes:
        content = torch_file(state(tensor()))
        for change in changes:
            content = _patched(content, entry, *change)
        return content

    FILES[name] = build


_zip_of("a size that lies", "data/0", (_DIRECTORY, 24, _GIGABYTE), (_DIRECTORY, 20, _GIGABYTE))
_zip_of("a size that lies when inflated", "data/0", (_DIRECTORY, 24, _GIGABYTE))
_zip_of("an entry called deflated", "data/0", (_DIRECTORY, 10, b"\x08\0"))
_zip_of("zip64 without its numbers", "data/0", (_DIRECTORY, 24, b"\xff" * 4), (_DIRECTORY, 20, b"\xff" * 4))
_zip_of("an entry that is encrypted", "data/0", (_DIRECTORY, 8, b"\x01\0"), (_LOCAL, 6, b"\x01\0"))
_zip_of("an entry that is a link", "data/0", (_DIRECTORY, 38, (0o120777 << 16).to_bytes(4, "little")))
_zip_of("an entry at another's place", "data/0", (_DIRECTORY, 42, b"\0\0\0\0"))
_zip_of("an entry beyond the end", "data/0", (_DIRECTORY, 42, _GIGABYTE))
_zip_of("an entry called otherwise in its header", "data/0", (_LOCAL, 30, b"archive/data/1"))
_zip_of("an entry with a name beyond the end", "data/0", (_LOCAL, 26, b"\xff\xff"))


@_file
def _an_entry_inside_another() -> bytes:
    """Whole, with its own header, among the other's bytes, where the directory says that it is."""
    inner = torch_file(state(tensor()), **{"data/1": b"\0" * 60})
    start = inner.rfind(_LOCAL, 0, inner.find(b"archive/data/1"))
    content = torch_file(state(tensor()), inner[start : start + 104], **{"data/1": b"\0" * 60})
    return _patched(
        content, "data/1", _DIRECTORY, 42, content.find(_LOCAL + inner[start + 4 : start + 60]).to_bytes(4, "little")
    )


@_file
def _two_pickles() -> bytes:
    """Which of two readers would take different ones of."""
    content = torch_file(state(tensor()), **{"data.pkx": pickle.dumps(_Runs(), 2)})
    return content.replace(b"data.pkx", b"data.pkl")


@_file
def _zip64_that_lies() -> bytes:
    """Its end says that the directory is elsewhere, and endless."""
    content = torch_file(state(tensor()))
    at = content.rfind(b"PK\x05\x06")
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2**40, 2**40, 2**62, 2**62)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, at, 1)
    return content[:at] + end64 + locator + content[at:]


@_file
def _a_directory_without_end() -> bytes:
    return torch_file(state(tensor()))[:-22]


@_file
def _bytes_missing_in_the_middle() -> bytes:
    content = torch_file(state(tensor()))
    return content[:200] + content[201:]


@_file
def _an_entry_that_torch_does_not_write() -> bytes:
    return torch_file(state(tensor()), **{"code/__torch__.py": b"import os"})


@_file
def _an_entry_that_leaves_the_folder() -> bytes:
    return torch_file(state(tensor()), **{"../../etc/passwd": b"root"})


@_file
def _a_program_before_the_zip() -> bytes:
    return b"#!/bin/sh\ntouch " + str(CANARY).encode() + b"\n" + torch_file(state(tensor()))


@_file
def _torch_before_version_1_6() -> bytes:
    return b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + pickle.dumps(_Runs(), 2)


def good_files() -> dict[str, bytes]:
    """Files that are taken, to be compared with: a checkpoint of each format, and a data set."""
    shapes = {name: array.shape for name, array in parameters().items()}
    values, offset = [], 0
    for shape in shapes.values():
        strides = (shape[1], 1) if len(shape) == 2 else (1,)
        values.append(tensor(shape, strides, offset))
        offset += int(np.prod(shape))
    return {
        "checkpoint.safetensors": save(parameters()),
        "checkpoint.pt": torch_file(state(*values, names=tuple(shapes))),
        "data.safetensors": save(data()),
    }
