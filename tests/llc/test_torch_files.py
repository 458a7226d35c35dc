"""What torch wrote is read as torch reads it, by a process that can do little else."""

import io
import resource
import socket
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llc import confined
from llc.checkpoints import DTYPES, read_header
from llc.confined import convert_torch_file
from llc.errors import InputError
from llc.torch_files import convert, is_torch_file

BASE = torch.arange(24, dtype=torch.float32).reshape(4, 6)
TYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


class Net(torch.nn.Module):
    """With parameters that are tied, buffers, and a buffer of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.unembed = torch.nn.Linear(4, 5, bias=False)
        self.unembed.weight = self.embed.weight


STATES: dict[str, dict[str, torch.Tensor]] = {
    "every type": {str(dtype): torch.tensor([[0, 1, 1], [3, 5, 8]]).to(dtype) for dtype in TYPES},
    "views of one storage": {
        "whole": BASE,
        "transposed": BASE.t(),
        "rows": BASE[1:3],
        "every other column": BASE[:, ::2],
        "diagonal": BASE[:, :4].diagonal(),
        "a number": BASE[2, 3],
        "permuted": BASE.reshape(2, 3, 4).permute(2, 0, 1),
    },
    "without elements": {"a": torch.zeros(0), "b": torch.zeros(3, 0, 2), "c": torch.tensor(2.5)},
    "parameters": OrderedDict(weight=torch.nn.Parameter(torch.randn(3, 2)), bias=torch.nn.Parameter(torch.zeros(3))),
    "a network": Net().state_dict(),
    "large": {"w": torch.randn(1500, 1000).t(), "b": torch.randn(1_100_000).bfloat16()},
    "not finite": {"w": torch.tensor([float("nan"), float("inf"), -0.0, 1e-40])},
}


def converted(content: bytes, folder: Path) -> dict[str, torch.Tensor]:
    """Through the process."""
    (folder / "file.pt").write_bytes(content)
    convert_torch_file(folder / "file.pt", folder / "file.safetensors", room=2**30)
    return load_file(folder / "file.safetensors")


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def rewritten(content: bytes, **entries: bytes) -> bytes:
    """With other bytes in some entries (`data_0` for `data/0`)."""
    changed = {f"archive/{name.replace('_', '/', 1)}": raw for name, raw in entries.items()}
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name, old.read(name)))
    return file.getvalue()


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        if tensor.numel():
            raw, wanted = found[name].contiguous(), tensor.detach().contiguous()
            assert torch.equal(raw.reshape(-1).view(torch.uint8), wanted.reshape(-1).view(torch.uint8)), name


@pytest.mark.parametrize("name", STATES)
def test_it_is_what_torch_reads(name: str, tmp_path: Path) -> None:
    content = saved(STATES[name])
    expected = torch.load(io.BytesIO(content), weights_only=True)
    same(expected, STATES[name])
    same(converted(content, tmp_path), expected)
    entries = read_header(tmp_path / "file.safetensors")
    assert all(entry.start % DTYPES[entry.dtype][1] == 0 for entry in entries.values())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickles(protocol: int, tmp_path: Path) -> None:
    state = STATES["parameters"]
    same(converted(saved(state, pickle_protocol=protocol), tmp_path), state)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_among_other_things(key: str, tmp_path: Path) -> None:
    network = Net()
    optimizer = torch.optim.Adam(network.parameters())
    torch.cat([parameter.flatten() for parameter in network.parameters()]).sum().backward()
    optimizer.step()
    state = network.state_dict()
    others = {"optimizer": optimizer.state_dict(), "epoch": 3, "loss": 0.5, "done": False, "sizes": torch.Size([3])}
    types = {"dtype": torch.float32, "device": torch.device("cpu"), "note": None}
    same(converted(saved({key: state, **others, **types}), tmp_path), state)


def test_what_a_big_endian_machine_wrote(tmp_path: Path) -> None:
    state = {"a": torch.tensor([1.5, -2.0, 1e-3]), "b": torch.tensor([1, 2], dtype=torch.bfloat16)}
    raw = {"data_0": np.array([1.5, -2.0, 1e-3], ">f4").tobytes(), "data_1": b"\x3f\x80\x40\x00"}
    same(converted(rewritten(saved(state), byteorder=b"big", **raw), tmp_path), state)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "the format before 1.6": ({"a": BASE}, {"_use_new_zipfile_serialization": False}, "before 1.6"),
    "a whole module": (Net(), {}, "Net"),
    "one tensor": (BASE, {}, "one tensor"),
    "nothing": ({}, {}, "not exactly one of"),
    "two state dicts": ({"model": {"a": BASE}, "state_dict": {"a": BASE}}, {}, "not exactly one of"),
    "none": ({"epoch": 3}, {}, "'epoch'"),
    "a number among tensors": ({"a": BASE, "epoch": 3}, {}, "'epoch' is a number"),
    "a tensor by a number": ({"a": BASE, 0: BASE}, {}, "called 0"),
    "a name with a line in it": ({"a\nb": BASE}, {}, "called 'a\\nb'"),
    "an expanded tensor": ({"a": torch.zeros(1).expand(10)}, {}, "twice"),
    "windows": ({"a": torch.zeros(10).unfold(0, 4, 1)}, {}, "twice"),
    "complex numbers": ({"a": torch.zeros(3, dtype=torch.complex64)}, {}, "ComplexFloatStorage"),
    "a sparse tensor": ({"a": BASE.to_sparse()}, {}, "_rebuild_sparse_tensor"),
    "a type of no storage": ({"a": torch.zeros(3, dtype=torch.uint16)}, {}, "_rebuild_tensor_v3"),
    "too often": (dict.fromkeys("abcdefghijklmnopqrstuvwxyz", torch.zeros(10_000)), {}, "more than 16 times"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    value, options, why = REFUSED[name]
    (tmp_path / "file.pt").write_bytes(saved(value, **options))
    assert is_torch_file(tmp_path / "file.pt")
    with pytest.raises(InputError, match=r"'file\.pt'") as refused:
        read_here(tmp_path / "file.pt")
    assert refused.value.code == "bad_torch_file"
    assert why in refused.value.detail
    assert "torch.save(model.state_dict(), path)" in refused.value.hint


def read_here(path: Path) -> None:
    with path.open("rb") as source:
        convert(source, io.BytesIO(), f"'{path.name}'")


def test_a_scripted_module(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "file.pt")
    with pytest.raises(InputError, match=r"torch\.save does not write"):
        read_here(tmp_path / "file.pt")


def test_the_process_refuses_as_the_reader_does(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data\.pkl") as refused:
        converted(zipped(**{"a/data/0": b"12"}), tmp_path)
    assert (refused.value.code, refused.value.hint != "") == ("bad_torch_file", True)


def test_more_memory_than_it_may_have(tmp_path: Path) -> None:
    """16 MB of empty dictionaries, that would take 1 GB."""
    with pytest.raises(InputError, match="bytes of memory"):
        converted(zipped(**{"a/data.pkl": b"\x80\x02(" + b"}" * (2**24 - 5) + b"t."}), tmp_path)


def test_more_time_than_it_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "SECONDS", 0.01)
    with pytest.raises(InputError, match="more than 0 s"):
        converted(saved({"a": BASE}), tmp_path)


def zipped(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, raw in entries.items():
            archive.writestr(name, raw)
    return file.getvalue()


PROBE = """
import json, resource, socket, sys
from pathlib import Path
from llc.confined import _confine
source, target = sys.argv[1:]
with Path(source).open("rb") as reading, Path(target).open("xb") as writing:
    _confine(reading, writing, 2**30)
    def refused(act):
        try:
            act()
        except (OSError, MemoryError) as error:
            return type(error).__name__ + str(getattr(error, "errno", ""))
        return "done"
    files = []
    def open_two():
        files.append(open("/etc/passwd"))
        files.append(open("/etc/passwd"))
    found = {
        "open": refused(open_two),
        "socket": refused(socket.socket),
        "memory": refused(lambda: bytearray(2**28)),
        "limits": [resource.getrlimit(getattr(resource, f"RLIMIT_{n}"))[1] for n in ("CORE", "CPU", "DATA", "FSIZE")],
    }
    files.clear()
    reach = socket.socket()
    reach.settimeout(2)
    found["network"] = refused(lambda: reach.connect(("127.0.0.1", PORT)))
    sys.stdout.write(json.dumps(found))
"""


# docs/files.md promises these two on Linux only: elsewhere there is nothing of them to test.
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can unshare the network and limit a process's data")
def test_what_the_process_can_not(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe = PROBE.replace("PORT", str(listener.getsockname()[1]))
        command = [sys.executable, "-c", probe, str(tmp_path / "source"), str(tmp_path / "target")]
        where, environment = Path(confined.__file__).parents[1], confined.ENVIRONMENT
        found = subprocess.run(command, cwd=where, env=environment, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    fsize = 16 * 100 + 2**25
    assert found.stdout.decode() == (
        '{"open": "OSError24", "socket": "OSError24", "memory": "MemoryError", '
        f'"limits": [0, 30, {confined.MEMORY_BYTES}, {fsize}], "network": "OSError101"}}'
    )
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != confined.MEMORY_BYTES


@pytest.mark.parametrize("room", [-1, 0, 1000, 7_000_000])
def test_no_more_is_written_than_there_is_room(tmp_path: Path, room: int) -> None:
    """16 names of one tensor of half a megabyte: sixteen times the file."""
    (tmp_path / "file.pt").write_bytes(saved(dict.fromkeys("abcdefghijklmnop", torch.zeros(131_072))))
    with pytest.raises(OSError, match="No space left"):
        convert_torch_file(tmp_path / "file.pt", tmp_path / "file.safetensors", room)
    assert (tmp_path / "file.safetensors").stat().st_size <= max(room, 0)
    convert_torch_file(tmp_path / "file.pt", tmp_path / "whole.safetensors", 9_000_000)
    assert (tmp_path / "whole.safetensors").stat().st_size > 8_000_000
