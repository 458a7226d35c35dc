"""What a long computation tells while it goes on, and keeps, so that another process can go on from there.

A computation here is deterministic. Whatever it keeps is a point on the only way there is, whoever kept it and however
often it was begun. To resume is to go that way again from the start, and to take what was kept in place of what it
would have taken to get there: bit for bit the same comes out.
"""

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

log = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]

METADATA = "lambdahat.progress"

MAX_SAVING_SHARE = 0.05
"""Of the time, spent on saving."""


class Progress:
    """Tells nobody and keeps nothing."""

    def report(self, row_steps: int) -> None:
        """So many row-steps were done since the last call."""

    def recall(self, part: str) -> Arrays | None:
        """What was kept of a part of the computation, by this process or an earlier one."""

    def keep(self, part: str, arrays: Callable[[], Arrays], *, over: bool = False) -> None:
        """Called where the computation can be resumed. over: the part is; another may begin."""

    def once(self, part: str, compute: Callable[[], Arrays]) -> Arrays:
        """What a part finds, computed unless it was already."""
        found = self.recall(part)
        if found is None:
            computed = found = compute()
            self.keep(part, lambda: computed, over=True)
        return found


NO_PROGRESS = Progress()


class SavedProgress(Progress):
    """Kept in one file, which is replaced now and then, and whole at any time."""

    def __init__(self, path: Path, made_of: Any, seconds: float) -> None:
        """made_of: JSON-like, all that the numbers depend on; a file made of something else is none; seconds: from one
        save to the next, at least.
        """
        self.row_steps = 0
        self._path, self._seconds = path, seconds
        self._made_of = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        self._parts: dict[str, Arrays] = self._read()
        self._due = time.monotonic() + seconds
        self._is_stopping = False

    def stop(self) -> None:
        """Save where the computation can next be resumed, and end this process there. May be called by a signal."""
        self._is_stopping = True

    def report(self, row_steps: int) -> None:
        self.row_steps += row_steps

    def recall(self, part: str) -> Arrays | None:
        return self._parts.get(part)

    def keep(self, part: str, arrays: Callable[[], Arrays], *, over: bool = False) -> None:
        if over:
            self._parts[part] = arrays()
        if time.monotonic() < self._due and not self._is_stopping:
            return
        start = time.monotonic()
        self._write(self._parts if over else self._parts | {part: arrays()})
        if self._is_stopping:
            sys.exit()
        now = time.monotonic()
        self._due = now + max(self._seconds, (now - start) / MAX_SAVING_SHARE)

    def _write(self, parts: Mapping[str, Arrays]) -> None:
        """Replace the file. A power cut leaves the old one or the new one."""
        arrays = {
            f"{part}\n{name}": np.asarray(array, order="C")
            for part, found in parts.items()
            for name, array in found.items()
        }
        about = {"made_of": self._made_of, "row_steps": self.row_steps, "sha256": _hash(arrays)}
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            save_file(arrays, new, {METADATA: json.dumps(about)})
            with new.open("rb") as file:
                os.fsync(file.fileno())
            new.replace(self._path)
        except (OSError, SafetensorError) as error:
            # The disk is full, perhaps. What was computed so far is in memory, and goes on.
            log.warning("no progress is saved: %s", error)
            with suppress(OSError):
                new.unlink()

    def _read(self) -> dict[str, Arrays]:
        """The parts of the file; none if there is no such file, or not a whole one of this computation."""
        try:
            with safe_open(self._path, "numpy") as file:
                about = json.loads((file.metadata() or {}).get(METADATA, "{}"))
                if about.get("made_of") != self._made_of:
                    return {}
                names = file.keys()  # what `safe_open` gives can't itself be iterated
                arrays = {name: file.get_tensor(name) for name in names}
        except FileNotFoundError:
            return {}
        except (OSError, SafetensorError, ValueError) as error:
            log.warning("the progress that was saved can't be read, so it all begins anew: %s", error)
            return {}
        if _hash(arrays) != about["sha256"]:
            log.warning("the progress that was saved is damaged, so it all begins anew")
            return {}
        self.row_steps = about["row_steps"]
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for name, array in arrays.items():
            part, key = name.split("\n")
            parts.setdefault(part, {})[key] = array
        return dict(parts)


def _hash(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.asarray(array, order="C").tobytes())
    return digest.hexdigest()
