"""Whatever JSON comes, in whatever place of a good request: an answer, never a crash."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.api.conftest import new_lab
from tests.api.lab import SPEC, Lab, parameters

MODEL = {**SPEC, "activation": "relu", "bias": True, "embeddings": {"vocabulary_size": 5, "num_positions": 2}}
LLC = {"gamma": 1.0, "nbeta": None, "num_chains": 2, "seed": 1, "sampler": {"name": "sgld", "epsilon": 1e-5}}
MEASURES = {"loss": {}, "llc": LLC, "hessian": {"near_zero": 0.1}}

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**62, 2**63, 2**64, -(2**63), 10**400, 0, -1]),
    st.floats(),
    TEXT,
    st.sampled_from(["\0", "\ud800", "ser_" + "0" * 32, "0" * 64, ""]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def bodies(url: str, engine: Engine, blob_dir: Path) -> Iterator[tuple[Lab, dict[str, dict[str, Any]]]]:
    """Good bodies, by the path they are posted to."""
    with new_lab(url, engine, blob_dir) as lab:
        series = lab.series()
        lab.checkpoint(series, 1)
        blob = lab.upload(parameters(1))
        yield (
            lab,
            {
                f"/v1/series/{series}/checkpoints": {"step": 2, "blob": blob, "metrics": {"loss": 0.5}},
                "/v1/series": {"name": "a", "model": lab.model(), "dataset": lab.dataset(), "tags": {"lr": 0.1}},
                "/v1/models": {"name": "a", "spec": MODEL},
                "/v1/models:validate": {"spec": MODEL},
                "/v1/datasets": {"name": "a", "blob": blob},
                "/v1/blobs:check": {"sha256": [blob]},
                "/v1/webhooks": {"url": "https://192.0.2.1/", "events": ["job.failed"], "description": "a"},
                "/v1/jobs": {"series": series, "measures": MEASURES, "stages": {"min_z": 3.0}, "device": "cpu"},
            },
        )


def places(body: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a body, its own first."""
    yield path
    if isinstance(body, dict | list):
        for key in body if isinstance(body, dict) else range(len(body)):
            yield from places(body[key], (*path, key))


def changed(body: Any, path: tuple[Any, ...], key: str | None, value: Any) -> Any:
    """The body with another value at a place, or, given a key, with one more entry there."""
    if not path and (key is None or not isinstance(body, dict)):
        return value
    body = copy.deepcopy(body)
    target = body
    for step in path[:-1]:
        target = target[step]
    if key is None or not isinstance(target[path[-1]] if path else target, dict):
        target[path[-1]] = value
    else:
        (target[path[-1]] if path else target)[key] = value
    return body


@given(st.integers(0, 7), st.integers(0, 200), st.none() | TEXT, VALUES)
@example(1, 0, None, {"name": "\ud800", "model": "m", "dataset": "d", "\udfff": 1})
@example(1, 1, None, "a\0b")
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_is_a_crash(
    bodies: tuple[Lab, dict[str, dict[str, Any]]], which: int, where: int, key: str | None, value: Any
) -> None:
    lab, good = bodies
    path, body = list(good.items())[which]
    found = list(places(body))
    content = json.dumps(changed(body, found[where % len(found)], key, value)).encode()
    response = lab.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code < 500, (path, content, response.text)
    if response.status_code >= 400:
        assert response.json()["code"], response.text


@given(st.binary(max_size=40), st.sampled_from(["application/json", "text/plain", "application/x+json", ""]))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_are_a_crash(bodies: tuple[Lab, dict[str, dict[str, Any]]], content: bytes, content_type: str) -> None:
    lab, good = bodies
    for path in good:
        response = lab.post(path, content=content, headers={"Content-Type": content_type})
        assert 400 <= response.status_code < 500, (path, content, response.text)
