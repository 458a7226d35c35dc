"""A tenant as tests see it: a client with its key, and the things it can post in one call."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from sqlalchemy import Engine, text

from store.tables import Base

SPEC: dict[str, Any] = {"family": "mlp", "widths": [3, 4, 2]}
"""A perceptron of 3 inputs, 4 hidden units and 2 classes."""

Arrays = Mapping[str, NDArray[Any]]


def data(n: int = 8) -> dict[str, NDArray[Any]]:
    """n samples that fit SPEC."""
    return {
        "x": np.linspace(-1, 1, 3 * n, dtype=np.float32).reshape(n, 3),
        "y": np.arange(n, dtype=np.int64) % 2,
    }


def parameters(seed: int = 0) -> dict[str, NDArray[Any]]:
    """A checkpoint that fits SPEC."""
    generator = np.random.default_rng(seed)
    shapes = {"layers.0.weight": (4, 3), "layers.0.bias": (4,), "layers.1.weight": (2, 4), "layers.1.bias": (2,)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def sha256(content: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(content).hexdigest()


class Lab(httpx.Client):
    """An HTTP client of one tenant."""

    def __init__(self, url: str, key: str, tenant_id: str, engine: Engine, blob_dir: Path) -> None:
        super().__init__(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        self.api_key = key
        self.tenant_id = tenant_id
        self.engine = engine
        self.blob_dir = blob_dir

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def upload(self, content: bytes | Arrays) -> str:
        """Upload a file; its hash."""
        raw = content if isinstance(content, bytes) else save(dict(content))
        created(self.put(f"/v1/blobs/{sha256(raw)}", content=raw))
        return sha256(raw)

    def dataset(self, arrays: Arrays | None = None) -> str:
        """Post a data set; its id."""
        blob = self.upload(data() if arrays is None else arrays)
        return created(self.post("/v1/datasets", json={"name": "data", "blob": blob}))["id"]

    def model(self, spec: Mapping[str, Any] = SPEC) -> str:
        """Post a model; its id."""
        return created(self.post("/v1/models", json={"name": "model", "spec": spec}))["id"]

    def series(self, name: str = "run") -> str:
        """Post a series with its data set and model; its id."""
        body = {"name": name, "model": self.model(), "dataset": self.dataset()}
        return created(self.post("/v1/series", json=body))["id"]

    def checkpoint(self, series: str, step: int) -> str:
        """Post a checkpoint, other parameters at every step; its id."""
        body = {"step": step, "blob": self.upload(parameters(step)), "metrics": {"loss": 1.5}}
        return created(self.post(f"/v1/series/{series}/checkpoints", json=body))["id"]

    def job(self, series: str, **settings: Any) -> str:
        """Post a job; its id."""
        response = self.post("/v1/jobs", json={"series": series, **settings})
        assert response.status_code == 202, response.text
        return response.json()["id"]

    def everything(self) -> tuple[dict[str, int], set[str]]:
        """How many rows each table has, and which files the blob folder: for 'nothing was left behind'."""
        with self.engine.connect() as connection:
            rows = {
                table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
                for table in Base.metadata.tables
            }
        files = {str(path.relative_to(self.blob_dir)) for path in self.blob_dir.rglob("*") if path.is_file()}
        return rows, files


def created(response: httpx.Response) -> dict[str, Any]:
    """The body of a successful answer."""
    assert response.status_code in (200, 201), response.text
    return response.json()


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem of a refusal, which must say everything that a problem says."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem
