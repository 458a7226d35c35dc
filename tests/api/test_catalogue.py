"""Data sets, models, series and checkpoints: posted, found, listed, changed, deleted."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.api.lab import SPEC, Lab, created, data, parameters, refused


def test_a_dataset_is_described(lab: Lab) -> None:
    arrays = data(8)
    blob = lab.upload(arrays)
    dataset = created(lab.post("/v1/datasets", json={"name": "line", "blob": blob}))
    assert dataset["num_samples"] == 8
    assert dataset["arrays"]["x"] == {"dtype": "float32", "shape": [8, 3], "min": -1.0, "max": 1.0, "finite": True}
    assert dataset["arrays"]["y"]["dtype"] == "int64"
    assert (dataset["name"], dataset["blob"]) == ("line", blob)
    age = datetime.now(UTC) - datetime.fromisoformat(dataset["created_at"])
    assert dataset["created_at"].endswith("Z")
    assert abs(age.total_seconds()) < 60
    assert lab.get(f"/v1/datasets/{dataset['id']}").json() == dataset
    assert lab.get("/v1/datasets").json() == {"data": [dataset], "has_more": False, "next": None}


def test_nan_in_a_dataset_is_told(lab: Lab) -> None:
    arrays = data()
    arrays["x"][0, 0] = np.nan
    described = lab.get(f"/v1/datasets/{lab.dataset(arrays)}").json()["arrays"]["x"]
    assert described["finite"] is False
    assert described["max"] == 1.0


def test_a_model_has_its_layout(lab: Lab) -> None:
    shape = lab.post("/v1/models:validate", json={"spec": SPEC}).json()
    assert shape["num_parameters"] == 3 * 4 + 4 + 4 * 2 + 2
    assert shape["layout"][0] == {"name": "layers.0.weight", "shape": [4, 3]}
    assert lab.get("/v1/models").json()["data"] == []
    model = created(lab.post("/v1/models", json={"name": "small", "spec": SPEC}))
    assert {key: model[key] for key in shape} == shape
    assert model["spec"]["activation"] == "relu"
    assert lab.get(f"/v1/models/{model['id']}").json() == model
    assert lab.get("/v1/models").json()["data"] == [model]


@pytest.mark.parametrize(
    ("spec", "x", "num_parameters", "first"),
    [
        ({"family": "tms", "num_features": 6}, np.zeros((8, 6), np.float32), 3 * 6, {"name": "W", "shape": [2, 6]}),
        (
            {
                "family": "transformer",
                "vocabulary_size": 7,
                "context_length": 3,
                "d_model": 4,
                "num_layers": 2,
                "num_heads": 2,
                "d_mlp": 16,
            },
            np.zeros((8, 3), np.int32),
            # embeddings, two layers of attention, perceptron and two norms, the last norm, the unembedding
            (7 + 3) * 4 + 2 * (4 * (4 * 4 + 4) + (2 * 4 * 16 + 16 + 4) + 2 * 8) + 8 + 7 * 4,
            {"name": "token_embedding.weight", "shape": [7, 4]},
        ),
    ],
    ids=["tms", "transformer"],
)
def test_inputs_may_be_their_own_targets(
    lab: Lab, spec: dict[str, Any], x: NDArray[Any], num_parameters: int, first: dict[str, Any]
) -> None:
    shape = lab.post("/v1/models:validate", json={"spec": spec}).json()
    assert shape["num_parameters"] == num_parameters
    assert shape["layout"][0] == first
    body = {"name": "run", "model": lab.model(spec), "dataset": lab.dataset({"x": x})}
    series = created(lab.post("/v1/series", json=body))["id"]
    blob = lab.upload({p["name"]: np.ones(p["shape"], np.float32) for p in shape["layout"]})
    created(lab.post(f"/v1/series/{series}/checkpoints", json={"step": 0, "blob": blob}))


def test_a_series_and_its_checkpoints(lab: Lab) -> None:
    model, dataset = lab.model(), lab.dataset()
    tags = {"lr": 0.1, "seed": 3, "note": "naïve ∂", "tied": True, "sweep": None}
    series = created(lab.post("/v1/series", json={"name": "run", "model": model, "dataset": dataset, "tags": tags}))
    assert (series["model"], series["dataset"], series["tags"]) == (model, dataset, tags)
    assert (series["num_checkpoints"], series["first_step"], series["last_step"]) == (0, None, None)

    ids = [lab.checkpoint(series["id"], step) for step in (100, 0, 2**61)]
    path = f"/v1/series/{series['id']}"
    listed = lab.get(f"{path}/checkpoints").json()["data"]
    assert [checkpoint["step"] for checkpoint in listed] == [0, 100, 2**61]
    assert [checkpoint["id"] for checkpoint in listed] == [ids[1], ids[0], ids[2]]
    assert listed[0]["metrics"] == {"loss": 1.5}
    assert listed[0]["series"] == series["id"]
    grown = lab.get(path).json()
    assert (grown["num_checkpoints"], grown["first_step"], grown["last_step"]) == (3, 0, 2**61)
    assert lab.get("/v1/series").json()["data"] == [grown]


def test_the_same_checkpoint_again_changes_nothing(lab: Lab) -> None:
    series = lab.series()
    body = {"step": 5, "blob": lab.upload(parameters()), "metrics": {"loss": 2}}
    first = lab.post(f"/v1/series/{series}/checkpoints", json=body)
    before = lab.everything()
    again = lab.post(f"/v1/series/{series}/checkpoints", json={**body, "metrics": {}})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert lab.everything() == before


def test_a_series_is_renamed_and_tagged(lab: Lab) -> None:
    series = lab.series("old")
    path = f"/v1/series/{series}"
    assert lab.patch(path, json={"tags": {"a": 1}}).json()["tags"] == {"a": 1}
    renamed = lab.patch(path, json={"name": "new"}).json()
    assert (renamed["name"], renamed["tags"]) == ("new", {"a": 1})
    assert lab.get(path).json() == renamed


def test_a_deleted_series_takes_everything_of_it_along(lab: Lab) -> None:
    series, kept = lab.series(), lab.series()
    lab.checkpoint(kept, 0)
    before = lab.everything()[0]
    lab.checkpoint(series, 0)
    job = lab.job(series)
    lab.post(f"/v1/jobs/{job}/cancel")
    assert lab.delete(f"/v1/series/{series}").status_code == 204
    refused(lab.get(f"/v1/series/{series}"), 404, "not_found")
    refused(lab.get(f"/v1/jobs/{job}"), 404, "not_found")
    assert lab.everything()[0] == {**before, "series": before["series"] - 1}
    assert lab.get(f"/v1/series/{kept}").json()["num_checkpoints"] == 1


def test_a_series_with_a_job_under_way_is_not_deleted(lab: Lab) -> None:
    series = lab.series()
    lab.checkpoint(series, 0)
    job = lab.job(series)
    before = lab.everything()
    problem = refused(lab.delete(f"/v1/series/{series}"), 409, "job_running")
    assert f"/v1/jobs/{job}/cancel" in problem["hint"]
    assert lab.everything() == before


def test_lists_are_paged_newest_first(lab: Lab) -> None:
    ids = [lab.model() for _ in range(5)]
    found: list[str] = []
    after: dict[str, str] = {}
    sizes: list[int] = []
    while True:
        page = lab.get("/v1/models", params={"limit": 2, **after}).json()
        found += [model["id"] for model in page["data"]]
        sizes.append(len(page["data"]))
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            break
        after = {"after": page["next"]}
    assert found == ids[::-1]
    assert sizes == [2, 2, 1]


def test_checkpoints_are_paged_by_step(lab: Lab) -> None:
    series = lab.series()
    for step in (7, 1, 30):
        lab.checkpoint(series, step)
    path = f"/v1/series/{series}/checkpoints"
    first = lab.get(path, params={"limit": 2}).json()
    second = lab.get(path, params={"limit": 2, "after": first["next"]}).json()
    assert [item["step"] for item in first["data"] + second["data"]] == [1, 7, 30]
    assert second["has_more"] is False


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/models", "/v1/series", "/v1/jobs"])
@pytest.mark.parametrize("cursor", ["x", "!!!!", "bnVsbA", "WzEsMl0", "\0", "ü", "/w", "Ilx1MDAwMCI"])
def test_a_made_up_cursor_is_refused(lab: Lab, path: str, cursor: str) -> None:
    problem = refused(lab.get(path, params={"after": cursor}), 422, "bad_cursor")
    assert problem["hint"]


def test_what_is_anothers_is_not_there(lab: Lab, other_lab: Lab) -> None:
    series = other_lab.series()
    other_lab.checkpoint(series, 0)
    job = other_lab.job(series)
    other = {name: other_lab.get(f"/v1/{name}").json()["data"][0]["id"] for name in ("datasets", "models")}
    before = lab.everything()
    hidden = [
        lab.get(f"/v1/datasets/{other['datasets']}"),
        lab.get(f"/v1/models/{other['models']}"),
        lab.get(f"/v1/series/{series}"),
        lab.patch(f"/v1/series/{series}", json={"name": "mine"}),
        lab.delete(f"/v1/series/{series}"),
        lab.get(f"/v1/series/{series}/checkpoints"),
        lab.get(f"/v1/series/{series}/curve"),
        lab.get(f"/v1/series/{series}/stages"),
        lab.get(f"/v1/series/{series}/transitions"),
        lab.get("/v1/jobs", params={"series": series}),
        lab.post("/v1/jobs", json={"series": series}),
        lab.get(f"/v1/jobs/{job}"),
        lab.get(f"/v1/jobs/{job}/events"),
        lab.get(f"/v1/jobs/{job}/results"),
        lab.post(f"/v1/jobs/{job}/cancel"),
        lab.post("/v1/series", json={"name": "x", "model": other["models"], "dataset": other["datasets"]}),
    ]
    for response in hidden:
        refused(response, 404, "not_found")
    for name in ("datasets", "models", "series", "jobs"):
        assert lab.get(f"/v1/{name}").json()["data"] == []
    assert lab.everything() == before


def test_anothers_blob_can_not_be_used(lab: Lab, other_lab: Lab) -> None:
    blob = other_lab.upload(data(9))
    assert lab.post("/v1/blobs:check", json={"sha256": [blob]}).json() == {"owned": [], "missing": [blob]}
    problem = refused(lab.post("/v1/datasets", json={"name": "theirs", "blob": blob}), 404, "not_found")
    assert f"PUT /v1/blobs/{blob}" in problem["hint"]


@pytest.mark.parametrize("value", [1e30, -1.5e300, 1e-320, 2.0**63, 2**63 - 1, -0.0, 7, True, None, "1e30"])
def test_a_tag_is_shown_as_it_was_given(lab: Lab, value: Any) -> None:
    """PostgreSQL keeps a large float as a whole number, larger than the whole numbers that a tag may be."""
    series = lab.series()
    assert lab.patch(f"/v1/series/{series}", json={"tags": {"a": value}}).json()["tags"] == {"a": value}
    for answer in (lab.get(f"/v1/series/{series}").json(), lab.get("/v1/series").json()["data"][0]):
        assert answer["tags"] == {"a": value}
        assert type(answer["tags"]["a"]) is type(value) or value in (2.0**63, -0.0)
