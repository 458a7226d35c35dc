"""A folder of checkpoints on their way to a server: `step_0000000010.safetensors`, its metrics beside it as JSON, and
`series.json`, which says where they go. `lambdahat push FOLDER` reads the same.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lambdahat.errors import LambdahatError
from lambdahat.tensors import to_bytes

SUFFIXES = (".safetensors", ".pt", ".pth")
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


class Spool:
    """The checkpoints of one folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def series(self) -> str | None:
        """The id of the series that this folder belongs to, if it is a recorder's."""
        about = _read_json(self.folder / "series.json")
        return about.get("series")

    def claim(self, series: str) -> None:
        """Make the folder, for one series. Raises: LambdahatError if it is another's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.series not in (None, series):
            raise LambdahatError(
                f"the folder {self.folder} holds checkpoints of series '{self.series}', not of '{series}'",
                "give each series a folder of its own",
            )
        _write(self.folder / "series.json", json.dumps({"series": series}).encode())

    def add(self, step: int, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Path:
        """Write a checkpoint. It appears whole or not at all, after its metrics."""
        path = self.folder / f"step_{step:010d}.safetensors"
        _write(path.with_suffix(".json"), json.dumps({"step": step, "metrics": dict(metrics)}).encode())
        _write(path, to_bytes(state))
        return path

    def checkpoints(self) -> dict[int, Path]:
        """Files by step, ascending. Raises: LambdahatError if two have the same step."""
        found: dict[int, Path] = {}
        for path in sorted(self.folder.iterdir() if self.folder.is_dir() else ()):
            step = step_of(path)
            if step is None or path.suffix not in SUFFIXES:
                continue
            if step in found:
                raise LambdahatError(
                    f"{found[step].name} and {path.name} are both of step {step}",
                    "the last number in a file's name is its step",
                )
            found[step] = path
        return dict(sorted(found.items()))

    @staticmethod
    def metrics(path: Path) -> dict[str, float]:
        """The metrics of a checkpoint file; none if there is no JSON file beside it."""
        return _read_json(path.with_suffix(".json")).get("metrics", {})

    @staticmethod
    def remove(path: Path) -> None:
        """Forget a checkpoint."""
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)


def step_of(path: Path) -> int | None:
    """The last number in a file's name: 1000 of `model_v2-step1000.safetensors`."""
    match = _LAST_NUMBER.search(path.stem)
    return int(match.group(1)) if match else None


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise LambdahatError(f"{path} is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}
