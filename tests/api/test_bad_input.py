"""What is wrong is refused with a code and a hint, and nothing of it is left behind."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import Engine

from tests.api.conftest import new_lab
from tests.api.lab import SPEC, Lab, data, parameters, refused


@dataclass(frozen=True)
class Ready:
    """A lab with everything that a request can be made of."""

    lab: Lab
    series: str
    model: str
    dataset: str
    blob: str
    """The file of the case, uploaded."""


@dataclass(frozen=True)
class Case:
    """A bad request: the file uploaded before it, the request, and the answer."""

    name: str
    send: Callable[[Ready], httpx.Response]
    code: str = "invalid_request"
    status: int = 422
    file: bytes = field(default_factory=lambda: save(parameters(3)))
    names: str = ""
    """What the problem must name."""


def checkpoint(ready: Ready) -> httpx.Response:
    """Post the case's file as the checkpoint of a new step."""
    return ready.lab.post(f"/v1/series/{ready.series}/checkpoints", json={"step": 50, "blob": ready.blob})


def dataset(ready: Ready) -> httpx.Response:
    """Post the case's file as a data set."""
    return ready.lab.post("/v1/datasets", json={"name": "bad", "blob": ready.blob})


def at(**body: Any) -> Callable[[Ready], httpx.Response]:
    """Post a checkpoint with these fields, else good ones."""

    def send(ready: Ready) -> httpx.Response:
        good = {"step": 50, "blob": ready.blob, "metrics": {}}
        return ready.lab.post(f"/v1/series/{ready.series}/checkpoints", json=good | body)

    return send


def run(**body: Any) -> Callable[[Ready], httpx.Response]:
    """Post a job with these fields."""
    return lambda ready: ready.lab.post("/v1/jobs", json={"series": ready.series, **body})


def new_series(**body: Any) -> Callable[[Ready], httpx.Response]:
    """Post a series with these fields, else good ones."""

    def send(ready: Ready) -> httpx.Response:
        good = {"name": "run", "model": ready.model, "dataset": ready.dataset, "tags": {}}
        return ready.lab.post("/v1/series", json=good | body)

    return send


def model_of(**spec: Any) -> Callable[[Ready], httpx.Response]:
    """Post a model with this specification."""
    return lambda ready: ready.lab.post("/v1/models", json={"name": "bad", "spec": spec})


def new_model(**spec: Any) -> Callable[[Ready], httpx.Response]:
    """Post a model with these fields in its specification, else good ones."""
    return model_of(**{**SPEC, **spec})


def raw(path: str, body: bytes, content_type: str = "application/json") -> Callable[[Ready], httpx.Response]:
    """Post these very bytes; SERIES in the path is the series."""

    def send(ready: Ready) -> httpx.Response:
        path_of = path.replace("SERIES", ready.series)
        content = body.replace(b"BLOB", ready.blob.encode()).replace(b"SERIES", ready.series.encode())
        return ready.lab.post(path_of, content=content, headers={"Content-Type": content_type})

    return send


def file_of(**tensors: Any) -> bytes:
    """A good checkpoint, with some tensors replaced (None: left out)."""
    changed = {**parameters(4), **{name.replace("_", "."): value for name, value in tensors.items()}}
    return save({name: value for name, value in changed.items() if value is not None})


def data_of(**arrays: Any) -> bytes:
    """A good data set, with some arrays replaced."""
    return save({name: value for name, value in {**data(), **arrays}.items() if value is not None})


TRANSPOSED = np.ones((3, 4), np.float32)
NAN = np.full((4,), np.nan, np.float32)
TRANSFORMER = {
    "family": "transformer",
    "vocabulary_size": 5,
    "context_length": 3,
    "d_model": 4,
    "num_layers": 1,
    "num_heads": 2,
    "d_mlp": 0,
}
UNKNOWN = "01900000000070008000000000000000"
STRANGER = "0" * 64

FILES = [
    Case("wrong shape", checkpoint, "wrong_shape", file=file_of(layers_0_weight=TRANSPOSED), names="layers.0.weight"),
    Case("missing parameter", checkpoint, "missing_parameter", file=file_of(layers_1_bias=None), names="layers.1.bias"),
    Case("parameter too many", checkpoint, "unexpected_parameter", file=file_of(extra=NAN), names="extra"),
    Case("NaN weights", checkpoint, "not_finite", file=file_of(layers_0_bias=NAN), names="layers.0.bias"),
    Case("infinite weights", checkpoint, "not_finite", file=file_of(layers_0_bias=NAN * 0 + np.inf)),
    Case("integer weights", checkpoint, "wrong_dtype", file=file_of(layers_0_bias=np.ones(4, np.int32))),
    Case("empty file", checkpoint, "bad_safetensors", file=b""),
    Case("a pickle", checkpoint, "bad_safetensors", file=b"\x80\x04\x95" + b"x" * 100),
    Case("cut short", checkpoint, "bad_safetensors", file=file_of()[:-1]),
    Case("bytes too many", checkpoint, "bad_safetensors", file=file_of() + b"\0"),
    Case("huge header", checkpoint, "bad_safetensors", file=b"\xff" * 8 + b"{}"),
    Case("deep header", checkpoint, "bad_safetensors", file=(10_000).to_bytes(8, "little") + b"[" * 10_000),
    Case("data set of no file", dataset, "bad_safetensors", file=b"x,y\n1,2\n"),
    Case("data set of nothing", dataset, "bad_data", file=save({})),
    Case("unequal lengths", dataset, "unequal_lengths", file=data_of(y=np.zeros(3, np.int64))),
]  # fmt: skip

FIELDS = [
    Case("step twice", at(step=1), "step_exists", 409, names="step 1"),
    Case("negative step", at(step=-1), names="body.step"),
    Case("huge step", at(step=2**62)),
    Case("fractional step", at(step=1.5)),
    Case("step as text", at(step="7")),
    Case("step true", at(step=True)),
    Case("no step", raw("/v1/series/SERIES/checkpoints", b'{"blob": "BLOB"}'), names="body.step"),
    Case("unknown blob", at(blob=STRANGER), "not_found", 404, names=STRANGER),
    Case("no hash", at(blob="latest")),
    Case("hash in capitals", at(blob="A" * 64)),
    Case("NUL in a metric's name", at(metrics={"lo\0ss": 1})),
    Case("metric as text", at(metrics={"loss": "low"})),
    Case("metric nested", at(metrics={"loss": {"train": 1}})),
    Case("too many metrics", at(metrics={f"m{i}": i for i in range(257)})),
    Case("unknown key", at(steps=3), names="body.steps"),
    Case("job unknown key", run(mesures={}), names="body.mesures"),
    Case("unknown key in settings", run(measures={"llc": {"num_chain": 4}}), names="body.measures.llc.num_chain"),
    Case("one chain", run(measures={"llc": {"num_chains": 1}}), names="body.measures.llc.num_chains"),
    Case("negative gamma", run(measures={"llc": {"gamma": -1}})),
    Case("a target without any", run(measures={"llc": {"target": {"relative_error": None}}}), names="std_error"),
    Case("unknown sampler", run(measures={"llc": {"sampler": {"name": "hmc"}}})),
    Case("unknown device", run(device="tpu")),
    Case("unknown series", run(series=f"ser_{UNKNOWN}"), "not_found", 404, names=UNKNOWN),
    Case("NUL in an id", run(series="ser_\0"), "not_found", 404),
    Case("id of another kind", new_series(model=f"dst_{UNKNOWN}"), "not_found", 404),
    Case("unknown data set", new_series(dataset=f"dst_{UNKNOWN}"), "not_found", 404, names="dataset"),
    Case("no name", new_series(name="")),
    Case("NUL in a name", new_series(name="a\0b"), names="NUL"),
    Case("long name", new_series(name="n" * 201)),
    Case("name null", new_series(name=None)),
    Case("nested tag", new_series(tags={"a": [1]}), names="body.tags.a"),
    Case("NUL in a tag", new_series(tags={"a": "b\0"})),
    Case("NUL in a tag's name", new_series(tags={"\0": 1})),
    Case("too many tags", new_series(tags={f"t{i}": i for i in range(65)})),
    Case("huge tag", new_series(tags={"a": 10**30})),
    Case("long tag", new_series(tags={"a": "x" * 2001})),
    Case("unknown family", new_model(family="resnet"), names="family"),
    Case("one width", new_model(widths=[3])),
    Case("no width", new_model(widths=[3, 0, 2])),
    Case("huge width", new_model(widths=[3, 10**9, 2])),
    Case("too large a model", new_model(widths=[10**6, 10**6]), "model_too_large"),
    Case("unknown activation", new_model(activation="sine")),
    Case("a loss of sequences", new_model(loss="next_token_cross_entropy"), names="loss"),
    Case("field of another family", new_model(d_model=4), names="d_model"),
    Case("heads that don't divide", model_of(**TRANSFORMER | {"num_heads": 3}), names="no multiple of num_heads 3"),
    Case("one token", model_of(**TRANSFORMER | {"context_length": 1}), names="context_length"),
    Case("no field d_mlp", model_of(**{k: v for k, v in TRANSFORMER.items() if k != "d_mlp"}), names="d_mlp"),
    Case("classes of an autoencoder", model_of(family="tms", num_features=3, loss="cross_entropy"), names="loss"),
    Case("no features", model_of(family="tms", num_features=0), names="num_features"),
]

CHECKPOINTS = "/v1/series/SERIES/checkpoints"

BODIES = [
    Case("NaN metric", raw(CHECKPOINTS, b'{"step": 5, "blob": "BLOB", "metrics": {"a": NaN}}')),
    Case("infinite metric", raw(CHECKPOINTS, b'{"step": 5, "blob": "BLOB", "metrics": {"a": -Infinity}}')),
    Case("overflowing metric", raw(CHECKPOINTS, b'{"step": 5, "blob": "BLOB", "metrics": {"a": 1e999}}')),
    Case("half a character in a metric", raw(CHECKPOINTS, rb'{"step": 5, "blob": "BLOB", "metrics": {"\ud800": 1}}')),
    Case("half a character in a key", raw(CHECKPOINTS, rb'{"step": 5, "blob": "BLOB", "\udfff": 1}')),
    Case("half a character in a name", raw("/v1/models:validate", rb'{"spec": {"family": "\ud800"}}')),
    Case("half a character in an id", raw("/v1/jobs", rb'{"series": "\ud800"}')),
    Case("NaN tag", raw("/v1/series", b'{"name": "a", "model": "m", "dataset": "d", "tags": {"a": NaN}}')),
    Case("NaN setting", raw("/v1/jobs", b'{"series": "SERIES", "measures": {"llc": {"gamma": NaN}}}')),
    Case("a number of 5000 digits", raw("/v1/jobs", b'{"series": ' + b"9" * 5000 + b"}"), "bad_request", 400),
    Case("no JSON", raw("/v1/jobs", b"{'series'}")),
    Case("half of JSON", raw("/v1/jobs", b'{"series": "SERIES"')),
    Case("not UTF-8", raw("/v1/jobs", b'{"series": "\xff\xfe"}'), "bad_request", 400),
    Case("deep JSON", raw("/v1/jobs", b"[" * 200_000), "bad_request", 400),
    Case("empty body", raw("/v1/jobs", b"")),
    Case("a list", raw("/v1/jobs", b"[]")),
    Case("null", raw("/v1/jobs", b"null")),
    Case("a form", raw("/v1/jobs", b"series=SERIES", "application/x-www-form-urlencoded")),
    Case("too large a body", raw("/v1/jobs", b" " * 1_000_001), "too_large", 413),
]  # fmt: skip


@pytest.fixture(scope="module")
def ready(url: str, engine: Engine, blob_dir: Path) -> Iterator[Ready]:
    """One lab for all cases, since none of them may leave anything behind."""
    with new_lab(url, engine, blob_dir) as lab:
        model, dataset = lab.model(), lab.dataset()
        series = lab.post("/v1/series", json={"name": "run", "model": model, "dataset": dataset}).json()["id"]
        lab.checkpoint(series, 1)
        yield Ready(lab, series, model, dataset, "")


@pytest.mark.parametrize("case", [*FILES, *FIELDS, *BODIES], ids=lambda case: case.name)
def test_it_is_refused_and_leaves_nothing(ready: Ready, case: Case) -> None:
    lab = ready.lab
    ready = replace(ready, blob=lab.upload(case.file))
    before = lab.everything()
    problem = refused(case.send(ready), case.status, case.code)
    assert problem["hint"] or case.code in ("bad_data", "wrong_dtype", "model_too_large")
    assert case.names in str(problem)
    assert (case.code == "invalid_request") == bool(problem.get("errors"))
    assert lab.everything() == before


@pytest.mark.parametrize(
    ("spec", "arrays", "code"),
    [
        (SPEC, {"y": np.full(8, 2, np.int64)}, "labels_out_of_range"),
        (SPEC, {"y": np.full(8, -1, np.int64)}, "labels_out_of_range"),
        (SPEC, {"y": np.zeros(8, np.float32)}, "wrong_targets"),
        (SPEC, {"x": np.zeros((8, 4), np.float32)}, "wrong_inputs"),
        (SPEC, {"x": np.full((8, 3), np.nan, np.float32)}, "not_finite"),
        (SPEC, {"y": None}, "missing_array"),
        ({**SPEC, "loss": "mse"}, {}, "wrong_targets"),
        ({**SPEC, "embeddings": {"vocabulary_size": 5, "num_positions": 3}}, {}, "wrong_inputs"),
        (
            {**SPEC, "embeddings": {"vocabulary_size": 5, "num_positions": 3}},
            {"x": np.full((8, 3), 5, np.int64)},
            "tokens_out_of_range",
        ),
        ({"family": "deep_linear", "widths": [3, 2]}, {}, "wrong_targets"),
        (TRANSFORMER, {}, "wrong_inputs"),
        (TRANSFORMER, {"x": np.zeros((8, 4), np.int64)}, "wrong_inputs"),
        (TRANSFORMER, {"x": np.full((8, 3), 5, np.int64)}, "tokens_out_of_range"),
        (TRANSFORMER, {"x": None}, "missing_array"),
        ({**TRANSFORMER, "loss": "cross_entropy"}, {"x": np.zeros((8, 3), np.int64), "y": None}, "missing_array"),
        ({"family": "tms", "num_features": 4}, {}, "wrong_inputs"),
        ({"family": "tms", "num_features": 3}, {"x": np.zeros((8, 3), np.int64)}, "wrong_inputs"),
        ({"family": "tms", "num_features": 3}, {"x": None}, "missing_array"),
    ],
)
def test_a_model_must_fit_its_data(lab: Lab, spec: dict[str, Any], arrays: dict[str, Any], code: str) -> None:
    chosen = {name: array for name, array in {**data(), **arrays}.items() if array is not None}
    body = {"name": "run", "model": lab.model(spec), "dataset": lab.dataset(chosen)}
    before = lab.everything()
    refused(lab.post("/v1/series", json=body), 422, code)
    assert lab.everything() == before


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/series/ser_{UNKNOWN}",
        f"/v1/series/ser_{UNKNOWN}/checkpoints",
        f"/v1/series/ser_{UNKNOWN}/curve",
        f"/v1/jobs/job_{UNKNOWN}",
        f"/v1/jobs/job_{UNKNOWN}/results",
        f"/v1/datasets/ser_{UNKNOWN}",
        "/v1/models/%00",
        "/v1/models/%ff",
        "/v1/models/" + "m" * 5000,
        f"/v1/jobs?series=ser_{UNKNOWN}",
        "/v1/jobs?series=%00",
        "/v1/nothing",
    ],
)
def test_what_is_not_there(lab: Lab, path: str) -> None:
    assert refused(lab.get(path), 404, "not_found")["hint"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=" + "9" * 5000])
def test_bad_queries(lab: Lab, query: str) -> None:
    refused(lab.get(f"/v1/series?{query}"), 422, "invalid_request")


@pytest.mark.parametrize("query", ["from_step=-1", f"to_step={2**62}", "format=xml", "from_step=NaN"])
def test_bad_curve_queries(lab: Lab, query: str) -> None:
    refused(lab.get(f"/v1/series/{lab.series()}/curve?{query}"), 422, "invalid_request")


def test_the_wrong_method(lab: Lab) -> None:
    response = lab.put("/v1/jobs")
    refused(response, 405, "method_not_allowed")
    assert "POST" in response.headers["allow"]
