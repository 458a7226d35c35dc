"""The service behind a reverse proxy, under a path which that takes off or leaves on."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine

import lambdahat
from api.root_path import UnderPath
from tests.api.conftest import new_lab, serving
from tests.api.lab import SPEC, Lab, data, parameters
from tests.api.reverse_proxy import PATH, reverse_proxy


@pytest.fixture(scope="module", params=[True, False], ids=["taken off", "left on"])
def behind(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[str]:
    """The URL of a service behind a proxy."""
    with (
        serving(environment | {"LAMBDAHAT_ROOT_PATH": PATH}) as upstream,
        reverse_proxy(upstream, strip=request.param) as url,
    ):
        yield url


@pytest.fixture
def lab(behind: str, engine: Engine, blob_dir: Path) -> Iterator[Lab]:
    """A tenant who knows the service by its address there."""
    with new_lab(behind, engine, blob_dir) as lab:
        yield lab


def test_the_page_and_what_it_asks_for(behind: str) -> None:
    page = httpx.get(f"{behind}/")
    names = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert {"assets/app.js", "assets/style.css", "docs"} <= set(names)
    for name in names:
        assert httpx.get(urljoin(f"{behind}/", name)).status_code == 200, name
    script = httpx.get(f"{behind}/assets/api.js").text
    assert "document.baseURI" in script


def test_the_description_says_where_it_is(behind: str) -> None:
    assert httpx.get(f"{behind}/openapi.json").json()["servers"] == [{"url": PATH}]
    assert f"{PATH}/openapi.json" in httpx.get(f"{behind}/docs").text


def test_links_lead_back(lab: Lab, behind: str) -> None:
    series = lab.series()
    lab.checkpoint(series, 0)
    headers = {"Idempotency-Key": "once"}
    for _ in range(2):  # and as it was kept
        posted = lab.post("/v1/jobs", json={"series": series}, headers=headers)
        location = posted.headers["Location"]
        assert location == f"{PATH}/v1/jobs/{posted.json()['id']}"
        assert lab.get(urljoin(behind, location)).json()["id"] == posted.json()["id"]


def test_redirects_stay_under_the_path_and_believe_the_proxy(lab: Lab, behind: str) -> None:
    redirect = lab.get("/v1/jobs/")
    assert redirect.status_code == 307
    assert redirect.headers["Location"] == behind.replace("http:", "https:") + "/v1/jobs"
    assert httpx.get(f"{behind}/metrics").status_code == 401  # who asks is not on this machine


def test_the_client_works_with_a_path(lab: Lab, behind: str) -> None:
    with lambdahat.Client(f"{behind}/", lab.api_key) as client:
        large = {"x": np.zeros((100_000, 3), np.float32), "y": np.zeros(100_000, np.int64)}  # more than a JSON body
        client.create_dataset("large", large)
        series = client.create_series("run", client.create_model("mlp", SPEC), client.create_dataset("d", data()))
        client.add_checkpoint(series, 0, parameters())
        job = client.run(series, {"loss": {}})
        start = time.monotonic()
        first = next(client.follow(job))  # the job goes on: a proxy that collects would keep us waiting
        assert first.kind == "job.queued"
        assert time.monotonic() - start < 5
        assert [found.id for found in client.list_jobs(series)] == [job.id]


def test_a_stream_is_not_to_be_collected(lab: Lab) -> None:
    series = lab.series()
    lab.checkpoint(series, 0)
    job = lab.job(series)
    with lab.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as response:
        assert response.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("path", ["/v1", "/v1/lab", "/assets"])
def test_a_path_that_is_the_services_own_is_refused(path: str) -> None:
    async def nothing(*_: object) -> None: ...

    with pytest.raises(ValueError, match="LAMBDAHAT_ROOT_PATH"):
        UnderPath(nothing, path)
