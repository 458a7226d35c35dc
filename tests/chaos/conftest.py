"""A stack whose leases end soon, and a small series on it, shared by the tests of this folder."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lambdahat
from lambdahat.objects import Series
from lambdahat.stack import Stack

CHECKPOINTS = 8


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """A stack whose leases end soon."""
    folder = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMBDAHAT_LEASE_SECONDS", "3")
        patch.setenv("LAMBDAHAT_DISPATCH_AGAIN_SECONDS", "3")
        patch.setenv("LAMBDAHAT_SAVE_SECONDS", "0.2")
        with Stack(folder / "data", port=0, workers=2) as stack:
            yield stack
    shutil.rmtree(folder)


@pytest.fixture(scope="package")
def client(stack: Stack) -> Iterator[lambdahat.Client]:
    with lambdahat.Client(stack.url, stack.key) as client:
        yield client


@pytest.fixture(scope="package")
def series(client: lambdahat.Client) -> Series:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3)).astype(np.float32)
    dataset = client.create_dataset("points", x=x, y=(x.sum(1) > 0).astype(np.int64))
    model = client.create_model("small", {"family": "mlp", "widths": [3, 8, 2], "activation": "tanh"})
    series = client.create_series("a run", model, dataset)
    shapes = {"layers.0.weight": (8, 3), "layers.0.bias": (8,), "layers.1.weight": (2, 8), "layers.1.bias": (2,)}
    for step in range(CHECKPOINTS):
        state = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        client.add_checkpoint(series, step, state)
    return series
