"""Checkpoints posted as torch wrote them."""

import io
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from safetensors.numpy import load_file
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llc.confined import AT_ONCE
from store.blobs import BlobStore
from store.tables import BlobOwner
from tests.api.lab import Lab, created, parameters, refused


def torch_file(state: Mapping[str, Any]) -> bytes:
    """A state dict of these arrays, as torch saves it."""
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, file)
    return file.getvalue()


def post(lab: Lab, series: str, step: int, blob: str) -> Any:
    return lab.post(f"/v1/series/{series}/checkpoints", json={"step": step, "blob": blob})


def test_it_is_kept_as_safetensors(lab: Lab) -> None:
    series, state = lab.series(), parameters(1)
    blob = lab.upload(torch_file(state))
    made = created(post(lab, series, 5, blob))
    assert made["source"] == blob != made["blob"]
    found = load_file(BlobStore(lab.blob_dir).path(made["blob"]))
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in state.items()}
    assert lab.get(f"/v1/series/{series}/checkpoints").json()["data"] == [made]
    assert lab.post("/v1/blobs:check", json={"sha256": [made["blob"]]}).json()["owned"] == [made["blob"]]


def test_posted_again_it_is_the_same(lab: Lab) -> None:
    series, blob = lab.series(), lab.upload(torch_file(parameters(1)))
    first = post(lab, series, 5, blob)
    before = lab.everything()
    again = post(lab, series, 5, blob)
    assert (again.status_code, again.json()) == (200, first.json())
    assert created(post(lab, series, 5, first.json()["blob"]))["id"] == first.json()["id"]
    assert lab.everything() == before
    problem = refused(post(lab, series, 5, lab.upload(torch_file(parameters(2)))), 409, "step_exists")
    assert "5" in problem["detail"]


def test_it_is_made_once(lab: Lab) -> None:
    """At another step the one made before is taken: the posted file is not looked at again."""
    series, blob = lab.series(), lab.upload(torch_file(parameters(1)))
    first = created(post(lab, series, 5, blob))
    path = BlobStore(lab.blob_dir).path(blob)
    path.write_bytes(path.read_bytes()[:100])
    assert created(post(lab, series, 6, blob))["blob"] == first["blob"]


def test_however_many_wait_for_a_conversion_others_are_answered(lab: Lab) -> None:
    series, blob = lab.series(), lab.upload(torch_file(parameters(1)))
    with ThreadPoolExecutor(50) as threads:
        with AT_ONCE, AT_ONCE:  # two of others, without end
            posted = [threads.submit(post, lab, series, step, blob) for step in range(50)]
            time.sleep(1.0)  # until all have arrived
            assert lab.get("/readyz").is_success
            lab.upload(b"another file")
            assert not any(one.done() for one in posted)
        assert {one.result().status_code for one in posted} == {201}


def test_one_that_does_not_fit_leaves_nothing(lab: Lab) -> None:
    series = lab.series()
    blob = lab.upload(torch_file({name: array for name, array in parameters(1).items() if name != "layers.1.bias"}))
    before = lab.everything()
    problem = refused(post(lab, series, 5, blob), 422, "missing_parameter")
    assert "layers.1.bias" in problem["detail"]
    assert blob in problem["detail"]
    assert lab.everything() == before


def test_another_tenant_makes_its_own(lab: Lab, other_lab: Lab) -> None:
    content = torch_file(parameters(3))
    made = [created(post(mine, mine.series(), 0, mine.upload(content)))["blob"] for mine in (lab, other_lab)]
    assert made[0] == made[1]
    with Session(lab.engine) as session:
        owners = select(func.count()).select_from(BlobOwner).where(BlobOwner.sha256 == made[0])
        assert session.scalar(owners) == 2
