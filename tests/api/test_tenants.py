"""Another tenant's things are not there: every operation that names one answers 404, and changes nothing."""

from typing import Any

import httpx
import pytest

from tests.api.lab import Lab, data, parameters, refused, sha256

OPEN = {
    # What a tenant uploads is its own, be it the same as another's.
    ("PUT", "/v1/blobs/{sha256}"),
}

BODIES: dict[tuple[str, str], Any] = {
    ("PATCH", "/v1/series/{series_id}"): {"name": "mine now"},
    ("PATCH", "/v1/webhooks/{webhook_id}"): {"enabled": False},
    ("POST", "/v1/series/{series_id}/checkpoints"): {"step": 7, "blob": "{blob}", "metrics": {}},
}


@pytest.fixture
def theirs(lab: Lab) -> dict[str, str]:
    """The ids of one of each thing, by the name of a path's parameter."""
    series = lab.series()
    checkpoint = lab.checkpoint(series, 0)
    found = lab.get(f"/v1/series/{series}").json()
    return {
        "series_id": series,
        "checkpoint_id": checkpoint,
        "job_id": lab.job(series),
        "model_id": found["model"],
        "dataset_id": found["dataset"],
        "key_id": lab.get("/v1/api-keys").json()["data"][0]["id"],
        "upload_id": lab.post("/v1/uploads", json={"sha256": "0" * 64, "size": 9}).json()["id"],
        **webhook_of(lab),
        "sha256": lab.get(f"/v1/series/{series}/checkpoints").json()["data"][0]["blob"],
    }


def webhook_of(lab: Lab) -> dict[str, str]:
    """A webhook with a delivery."""
    body = {"url": "https://192.0.2.1/hook", "events": ["*"]}
    webhook = lab.post("/v1/webhooks", json=body).json()["id"]
    return {"webhook_id": webhook, "delivery_id": lab.post(f"/v1/webhooks/{webhook}/test").json()["id"]}


def operations(url: str) -> list[tuple[str, str]]:
    """Those that name something."""
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        for method in methods
        if "{" in path and (method.upper(), path) not in OPEN
    ]


def test_no_operation_finds_it(lab: Lab, other_lab: Lab, theirs: dict[str, str], url: str) -> None:
    tried = operations(url)
    assert len(tried) > 15
    mine = other_lab.upload(parameters(1))
    before = lab.everything()
    for method, path in tried:
        body = BODIES.get((method, path))
        if body and "blob" in body:
            body = {**body, "blob": mine}
        asked = {"from_step": 0, "to_step": 0} if path.endswith("/compare") else {}
        headers = {"Upload-Offset": "0"}
        response = other_lab.request(method, path.format(**theirs), params=asked, json=body, headers=headers)
        if method == "HEAD":
            assert response.status_code == 404
        else:
            refused(response, 404, "not_found")
        assert lab.everything() == before, (method, path)


def test_no_body_or_query_finds_it(lab: Lab, other_lab: Lab, theirs: dict[str, str]) -> None:
    series = other_lab.series()
    other_lab.checkpoint(series, 0)
    mine = other_lab.get(f"/v1/series/{series}").json()
    refined = {"llc": {"refined": {"theirs": {"dataset": theirs["dataset_id"]}}}}
    unknown = lab.upload(data(9))
    before = lab.everything(), other_lab.everything()
    for response in (
        other_lab.post("/v1/series", json={"name": "a", "model": theirs["model_id"], "dataset": mine["dataset"]}),
        other_lab.post("/v1/series", json={"name": "a", "model": mine["model"], "dataset": theirs["dataset_id"]}),
        other_lab.post("/v1/jobs", json={"series": theirs["series_id"]}),
        other_lab.post("/v1/jobs", json={"series": series, "measures": refined}),
        other_lab.post("/v1/datasets", json={"name": "a", "blob": unknown}),
        other_lab.get("/v1/jobs", params={"series": theirs["series_id"]}),
        other_lab.get(f"/v1/series/{series}/curve", params={"job": theirs["job_id"]}),
        other_lab.get(f"/v1/series/{series}/transitions", params={"job": theirs["job_id"]}),
    ):
        refused(response, 404, "not_found")
    assert (lab.everything(), other_lab.everything()) == before


def test_nobody_learns_what_others_uploaded(lab: Lab, other_lab: Lab, theirs: dict[str, str]) -> None:
    """The same bytes are kept once, and are as new to each who posts them."""
    content = b"the same"
    lab.upload(content)
    name = sha256(content)
    assert other_lab.post("/v1/blobs:check", json={"sha256": [name]}).json() == {"owned": [], "missing": [name]}
    first, again = (other_lab.put(f"/v1/blobs/{name}", content=content).status_code for _ in range(2))
    assert (first, again) == (201, 200)
    for listing in ("series", "models", "datasets", "jobs"):
        assert other_lab.get(f"/v1/{listing}").json()["data"] == []
    assert theirs["series_id"] in str(lab.get("/v1/series").json())
