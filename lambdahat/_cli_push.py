"""Posting a folder of checkpoints as a series."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lambdahat._cli_common import err
from lambdahat.client import Client
from lambdahat.errors import LambdahatError
from lambdahat.objects import Dataset, Series
from lambdahat.spool import Spool
from lambdahat.uploads import sha256_of

AT_ONCE = 4
"""Files on their way: hashing one while another is sent, and not waiting for each answer."""


def series_for(
    client: Client, folder: Path, series: str | None, name: str | None, model: Path | None, data: Path | None
) -> Series:
    """The series to push to: the one named, the one that the folder is a recorder's spool of, or a new one."""
    known = series or Spool(folder).series
    if known is not None:
        return client.series(known)
    model = model or folder / "model.json"
    data = data or next((path for path in (folder / "data.safetensors", folder / "data.npz") if path.exists()), None)
    if data is None or not model.exists():
        missing = "data (data.safetensors or data.npz)" if data is None else f"model description ({model})"
        raise LambdahatError(
            f"a new series needs a model and data; there is no {missing}",
            "pass --model FILE.json and --data FILE, or --series ID to add to one that exists",
        )
    title = name or folder.resolve().name
    created = client.create_model(title, _read_spec(model))
    return client.create_series(title, created, _post_data(client, title, data))


def push_checkpoints(client: Client, series: Series, folder: Path, exclude: Path | None = None) -> tuple[int, int]:
    """Post what the series does not have; (how many were posted, how many were there)."""
    spool = Spool(folder)
    files = {step: path for step, path in spool.checkpoints().items() if exclude is None or path != exclude}
    if not files:
        raise LambdahatError(
            f"there are no checkpoints in {folder}",
            "they are called *.safetensors, *.pt or *.pth, with the step as the name's last number: step_001000.pt",
        )
    there = {known.step: known.source or known.blob for known in client.list_checkpoints(series)}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        bar = progress.add_task("checkpoints", total=len(files))

        def push(step: int, path: Path) -> bool:
            is_new = there.get(step) != sha256_of(path)
            if is_new:
                client.add_checkpoint(series, step, path, spool.metrics(path))
            progress.advance(bar)
            return is_new

        with ThreadPoolExecutor(AT_ONCE) as pool:
            posted = sum(pool.map(push, *zip(*files.items(), strict=True)))
    return posted, len(files) - posted


def _read_spec(path: Path) -> dict[str, Any]:
    try:
        spec = json.loads(path.read_text())
    except ValueError as error:
        raise LambdahatError(f"{path} is not JSON: {error}") from None
    if not isinstance(spec, dict):
        raise LambdahatError(f"{path} holds no JSON object", 'for example {"family": "mlp", "widths": [2, 16, 1]}')
    return spec


def _post_data(client: Client, name: str, path: Path) -> Dataset:
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return client.create_dataset(name, dict(arrays))
        except ValueError as error:
            raise LambdahatError(f"can't read {path}: {error}", "store plain arrays, without Python objects") from None
    return client.create_dataset(name, path)
