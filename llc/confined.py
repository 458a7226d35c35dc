"""A torch file made a safetensors file by a process that can do nothing else.

The reader, `llc.torch_files`, runs nothing of a file. Should it err, then in a process that has a small memory, little
time, no network, an empty environment, one file to write, of a bounded size, and no file descriptor left to open
another.

    python -m llc.confined SOURCE TARGET NAME ROOM
"""

import codecs
import contextlib
import ctypes
import errno
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import llc
from llc.checkpoints import called
from llc.errors import InputError
from llc.torch_files import MAX_SHARING, bad_torch_file, convert

MEMORY_BYTES = 192 * 2**20
"""Of what the process may write to (RLIMIT_DATA). The file is mapped and does not count."""
SECONDS = 30.0
BYTES_PER_SECOND = 32 * 2**20
"""How much more time a large file has."""

DISK_FULL = 74
"""The exit status (EX_IOERR)."""

AT_ONCE = threading.BoundedSemaphore(2)
"""Conversions in one process."""
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
CODECS = "cp437", "raw-unicode-escape"
"""What names in zips and texts in pickles may be in. Python loads a codec's file when it is first asked for."""
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""All of it. Threads would reserve memory, and a process that has some can't leave the network."""


def convert_torch_file(source: Path, target: Path, room: int) -> None:
    """Write the state dict of a torch file as a safetensors file, in a process of its own; at most two at a time.

    room: bytes that it may take on the disk. Raises: InputError `bad_torch_file`, also if that takes too much time or
    memory; OSError if the disk is full, or there is not so much room.
    """
    what = called(source)
    seconds = SECONDS + source.stat().st_size / BYTES_PER_SECOND
    command = [sys.executable, "-m", __name__, str(source.resolve()), str(target.resolve()), what, str(room)]
    with AT_ONCE:
        try:
            ended = subprocess.run(
                command,
                cwd=Path(llc.__file__).parents[1],  # from where it is imported, as this one was
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise bad_torch_file(what, f"reading it took more than {seconds:.0f} s") from None
    if ended.returncode < 0:
        raise bad_torch_file(what, f"its reader was ended by signal {-ended.returncode}")
    if ended.returncode == DISK_FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    if ended.returncode:
        raise RuntimeError(f"the reader of torch files failed: {ended.stderr.decode(errors='replace')[-2000:]}")
    if ended.stdout:
        raise InputError(**json.loads(ended.stdout))


def main() -> None:
    """The process: a refusal is said on stdout, as JSON."""
    source, target, what, room = sys.argv[1:]
    with Path(source).open("rb") as reading, Path(target).open("xb") as writing:
        _confine(reading, writing, int(room))
        too_large = _said(bad_torch_file(what, f"reading it took more than {MEMORY_BYTES} bytes of memory"))
        try:
            convert(reading, writing, what)
        except InputError as error:
            os.write(1, _said(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # the last: more than the room
                raise
            os._exit(DISK_FULL)  # at once: to close the file would try to write once more
        except MemoryError:  # while there is none, not even a text can be made
            os.write(1, too_large)


def _said(error: InputError) -> bytes:
    return json.dumps({"code": error.code, "detail": error.detail, "hint": error.hint}).encode()


def _confine(reading: BinaryIO, writing: BinaryIO, room: int) -> None:
    """From now on, for good."""
    for codec in CODECS:
        codecs.lookup(codec)
    size = os.fstat(reading.fileno()).st_size
    seconds = int(SECONDS + size / BYTES_PER_SECOND)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_DATA: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: max(0, min(room, MAX_SHARING * size + 2**25)),  # and a header
        resource.RLIMIT_NOFILE: max(reading.fileno(), writing.fileno()) + 2,  # one more, of the mapping
    }
    if sys.platform == "linux":
        # A network of its own, which has nothing in it. Where the kernel does not allow that, no socket can be had
        # either: it would be a file descriptor.
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    main()
