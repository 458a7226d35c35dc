"""The client: every endpoint as a method, over HTTP only."""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

from lambdahat import uploads
from lambdahat._client_webhooks import WebhookMethods
from lambdahat._requests import ident
from lambdahat.aligned import Alignment
from lambdahat.draws import Draws, from_bytes
from lambdahat.errors import LambdahatError
from lambdahat.objects import (
    Checkpoint,
    Comparison,
    Curve,
    Dataset,
    Event,
    Evidence,
    Identity,
    Job,
    Model,
    ModelShape,
    Result,
    Series,
    Stage,
    Transition,
    Use,
)
from lambdahat.tensors import to_bytes

PART_BYTES = 32 * 2**20

Arrays = Mapping[str, Any]


class Client(WebhookMethods):
    """A lambdahat server, seen with one API key. A context manager; safe to share between threads.

    url, key: by default LAMBDAHAT_URL (or http://127.0.0.1:8000) and LAMBDAHAT_KEY.
    Wherever a method takes an id, the object with that id does as well.
    Every method raises ApiError if the server refuses and ServerUnreachableError if it does not answer.
    """

    def whoami(self) -> Identity:
        """The tenant and the key that this client speaks for."""
        return self._get("/v1/whoami", Identity)

    def usage(self) -> dict[str, Use]:
        """How much there is of bytes, checkpoints and queued shards, and may be."""
        return {what: Use.model_validate(use) for what, use in self._http.json("GET", "/v1/usage").items()}

    # Blobs ------------------------------------------------------------------------------------------------------------

    def upload(self, source: str | Path | bytes) -> str:
        """Post a file, or bytes, unless the server has it from you already. Returns its SHA-256.

        What is large is sent in parts: cut short, even by the end of this process, the next call goes on from there.
        """
        sha256 = uploads.sha256_of(source)
        with BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size > PART_BYTES:
                uploads.send_in_parts(self._http, file, sha256, size, PART_BYTES)
            elif sha256 not in self._owned(sha256):
                self._http.send("PUT", f"/v1/blobs/{sha256}", content=lambda: _from_the_start(file))
        return sha256

    def _owned(self, sha256: str) -> list[str]:
        return self._http.json("POST", "/v1/blobs:check", json={"sha256": [sha256]}, idempotent=True)["owned"]

    # Data sets and models ---------------------------------------------------------------------------------------------

    def create_dataset(self, name: str, data: Arrays | str | Path | None = None, /, **arrays: Any) -> Dataset:
        """Store the samples that a series is measured on: inputs 'x' and, if the model's loss asks for them, targets
        'y', one row a sample.

        Arrays are numpy's or tensors, by keyword or as a mapping; or `data` is a safetensors file.
        """
        if isinstance(data, str | Path):
            if arrays:
                raise LambdahatError("a data set is either a file or arrays", "leave one of them out")
            blob = self.upload(Path(data))
        else:
            blob = self.upload(to_bytes({**(data or {}), **arrays}))
        return self._post("/v1/datasets", Dataset, {"name": name, "blob": blob})

    def dataset(self, dataset: str | Dataset) -> Dataset:
        """The data set with this id."""
        return self._get(f"/v1/datasets/{ident(dataset)}", Dataset)

    def list_datasets(self) -> Iterator[Dataset]:
        """All data sets, newest first."""
        return self._pages("/v1/datasets", Dataset)

    def create_model(self, name: str, spec: Mapping[str, Any]) -> Model:
        """Describe a model by data, for example `{"family": "mlp", "widths": [2, 16, 1]}`."""
        return self._post("/v1/models", Model, {"name": name, "spec": dict(spec)})

    def validate_model(self, spec: Mapping[str, Any]) -> ModelShape:
        """The parameters that a model would have; nothing is stored."""
        return self._post("/v1/models:validate", ModelShape, {"spec": dict(spec)}, idempotent=True)

    def model(self, model: str | Model) -> Model:
        """The model with this id."""
        return self._get(f"/v1/models/{ident(model)}", Model)

    def list_models(self) -> Iterator[Model]:
        """All models, newest first."""
        return self._pages("/v1/models", Model)

    # Series and checkpoints -------------------------------------------------------------------------------------------

    def create_series(
        self, name: str, model: str | Model, dataset: str | Dataset, tags: Mapping[str, Any] | None = None
    ) -> Series:
        """Start a series: the checkpoints of one training run of this model, to be measured on this data set."""
        body = {"name": name, "model": ident(model), "dataset": ident(dataset), "tags": dict(tags or {})}
        return self._post("/v1/series", Series, body)

    def series(self, series: str | Series) -> Series:
        """The series with this id, as it is now."""
        return self._get(f"/v1/series/{ident(series)}", Series)

    def list_series(self) -> Iterator[Series]:
        """All series, newest first."""
        return self._pages("/v1/series", Series)

    def update_series(
        self, series: str | Series, name: str | None = None, tags: Mapping[str, Any] | None = None
    ) -> Series:
        """Give a series another name or other tags."""
        changes = {"name": name, "tags": dict(tags) if tags is not None else None}
        body = {field: value for field, value in changes.items() if value is not None}
        return Series.model_validate(
            self._http.json("PATCH", f"/v1/series/{ident(series)}", json=body, idempotent=True)
        )

    def delete_series(self, series: str | Series) -> None:
        """Delete a series with its checkpoints, jobs and results."""
        self._http.send("DELETE", f"/v1/series/{ident(series)}")

    def add_checkpoint(
        self,
        series: str | Series,
        step: int,
        state: Arrays | str | Path,
        metrics: Mapping[str, float] | None = None,
    ) -> Checkpoint:
        """Post the parameters at a step: a state dict, or a file: safetensors, or of torch.save. Posting the same
        again changes nothing.

        metrics: what the training loop measured there, for example `{"test_loss": 0.3}`; NaN and infinity, which JSON
        has no words for, are left out.
        """
        blob = self.upload(Path(state)) if isinstance(state, str | Path) else self.upload(to_bytes(state))
        body = {"step": step, "blob": blob, "metrics": _finite(metrics or {})}
        return self._post(f"/v1/series/{ident(series)}/checkpoints", Checkpoint, body, idempotent=True)

    def list_checkpoints(self, series: str | Series) -> Iterator[Checkpoint]:
        """The checkpoints of a series, by step ascending."""
        return self._pages(f"/v1/series/{ident(series)}/checkpoints", Checkpoint)

    # Jobs -------------------------------------------------------------------------------------------------------------

    def run(
        self,
        series: str | Series,
        measures: Mapping[str, Mapping[str, Any] | str | None] | None = None,
        **settings: Any,
    ) -> Job:
        """Start a job on every checkpoint of a series.

        measures: settings by measure, for example `{"llc": {"gamma": 10}, "hessian": {}}`; null leaves one out, what
        is not said has the server's default, and `{"llc": "auto"}` lets a pilot choose.
        settings: the rest of a job's, such as `checkpoints_per_shard`. With `follow=True` it measures what is posted
        later, too, as it comes, until `finish`.
        """
        chosen = {} if measures is None else {"measures": dict(measures)}
        return self._post("/v1/jobs", Job, {"series": ident(series), **chosen, **settings})

    def job(self, job: str | Job) -> Job:
        """The job with this id, as it is now."""
        return self._get(f"/v1/jobs/{ident(job)}", Job)

    def list_jobs(self, series: str | Series | None = None) -> Iterator[Job]:
        """All jobs, or those of a series, newest first."""
        return self._pages("/v1/jobs", Job, series=ident(series) if series is not None else None)

    def cancel(self, job: str | Job) -> Job:
        """Ask a job to stop; what it has found already stays."""
        return self._post(f"/v1/jobs/{ident(job)}/cancel", Job, None, idempotent=True)

    def finish(self, job: str | Job) -> Job:
        """Let a job follow its series no longer: it ends when all that is posted now is measured."""
        return self._post(f"/v1/jobs/{ident(job)}/finish", Job, None, idempotent=True)

    def retry(self, job: str | Job) -> Job:
        """Run again what failed or was cancelled of a job; what succeeded stays."""
        return self._post(f"/v1/jobs/{ident(job)}/retry", Job, None, idempotent=True)

    def wait(
        self,
        job: str | Job,
        on_progress: Callable[[Job], None] | None = None,
        *,
        poll: float = 0.5,
        timeout: float | None = None,
    ) -> Job:
        """Ask every `poll` seconds until a job has ended, whichever way: see its `state` and `error`.

        Raises: TimeoutError after `timeout` seconds; the job goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            now = self.job(job)
            if on_progress is not None:
                on_progress(now)
            if now.is_finished:
                return now
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job '{now.id}' is still {now.state} after {timeout:g} s")
            time.sleep(poll)

    def events(self, job: str | Job, after: int = 0) -> Iterator[Event]:
        """What has happened to a job so far, in order; only what came after the event `after`, if given."""
        while True:
            page = self._http.json("GET", f"/v1/jobs/{ident(job)}/events", params={"after": after})["data"]
            if not page:
                return
            yield from map(Event.model_validate, page)
            after = page[-1]["id"]

    def follow(self, job: str | Job, after: int = 0) -> Iterator[Event]:
        """What happens to a job as it happens, from its first event, or from the one after `after`, until it has ended.
        A connection that breaks is made again, and no event is missed or told twice.

        Raises: ServerUnreachableError when that does not succeed.
        """
        while (messages := self._http.events(f"/v1/jobs/{ident(job)}/events", after)) is not None:
            for message in messages:
                if message.id is not None:
                    event = Event.model_validate_json(message.data)
                    after = event.id
                    yield event

    def results(self, job: str | Job) -> Iterator[Result]:
        """What a job found, by step, then measure."""
        return self._pages(f"/v1/jobs/{ident(job)}/results", Result)

    def draws(self, job: str | Job, checkpoint: str | Checkpoint, measure: str = "llc") -> Draws:
        """What the chains of a job left behind at a checkpoint, unless its settings say `"keep_draws": "none"`."""
        return from_bytes(self._http.send("GET", _draws_path(job, checkpoint), params={"measure": measure}).content)

    def save_draws(
        self,
        job: str | Job,
        checkpoint: str | Checkpoint,
        path: str | Path,
        *,
        format: Literal["safetensors", "netcdf"] = "safetensors",
        measure: str = "llc",
    ) -> Path:
        """The same as a file: safetensors for `llc.draw_files.read_draws`, NetCDF for ArviZ (`convert_to_datatree`)."""
        self._http.save(_draws_path(job, checkpoint), Path(path), {"format": format, "measure": measure})
        return Path(path)

    # What it all is for -----------------------------------------------------------------------------------------------

    def curve(
        self,
        series: str | Series,
        measure: str | None = None,
        job: str | Job | None = None,
        *,
        from_step: int | None = None,
        to_step: int | None = None,
        metrics: Iterable[str] = (),
    ) -> Curve:
        """Quantities over steps. measure: measures or quantities, separated by commas (default: all); job: whose
        results (default: the newest that has any); metrics: posted with the checkpoints, "*" for all.
        """
        params = _curve_params(measure, job, from_step, to_step, metrics)
        return Curve.model_validate(self._http.json("GET", f"/v1/series/{ident(series)}/curve", params=params))

    def curve_csv(
        self,
        series: str | Series,
        measure: str | None = None,
        job: str | Job | None = None,
        *,
        from_step: int | None = None,
        to_step: int | None = None,
        metrics: Iterable[str] = (),
    ) -> str:
        """The curve as CSV: `step`, then `q`, `q_std_error`, `q_verdict` of every quantity q, and `metrics.m`."""
        params = {**_curve_params(measure, job, from_step, to_step, metrics), "format": "csv"}
        return self._http.send("GET", f"/v1/series/{ident(series)}/curve", params=params).text

    def transitions(self, series: str | Series, job: str | Job | None = None) -> list[Stage]:
        """The transitions of a series' LLC curve, by step."""
        return self._stages(f"/v1/series/{ident(series)}/transitions", job)

    def stages(self, series: str | Series, job: str | Job | None = None) -> list[Stage]:
        """Plateaus and transitions, by step."""
        return self._stages(f"/v1/series/{ident(series)}/stages", job)

    def evidence(self, series: str | Series, job: str | Job | None = None) -> list[Evidence]:
        """Which measures of a job, and which metrics posted with the checkpoints, change at each of its transitions."""
        params = {"job": ident(job) if job is not None else None}
        answer = self._http.json("GET", f"/v1/series/{ident(series)}/evidence", params=params)
        return [Evidence.model_validate(one) for one in answer["data"]]

    def all_transitions(
        self,
        type: Literal["A", "B", "neither"] | None = None,
        min_probability: float | None = None,
        *,
        from_step: int | None = None,
        to_step: int | None = None,
        min_delta_llc: float | None = None,
        min_survival: float | None = None,
        family: str | None = None,
        tags: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[Transition]:
        """The transitions of all series, newest first: of each series those of the newest job that has read its stages.

        type: the type they have; with min_probability, the type that is so likely (without a type: A or B). from_step,
        to_step: they reach into these. min_delta_llc: the LLC rises or falls by so much. min_survival: so large a share
        of an ensemble's members has them, too. family: of the model. tags: their series has all of these.
        """
        return self._pages(
            "/v1/transitions",
            Transition,
            type=type,
            min_probability=min_probability,
            from_step=from_step,
            to_step=to_step,
            min_delta_llc=min_delta_llc,
            min_survival=min_survival,
            family=family,
            tag=_tag_params(tags),
        )

    def align(
        self,
        series: Iterable[str | Series] = (),
        tags: Mapping[str, Any] = MappingProxyType({}),
        axis: Literal["step", "loss"] = "step",
    ) -> Alignment:
        """What the transitions of several series, seeds say, have in common, and which series are outliers: of these
        series, and of those that have all of these tags.

        axis: transitions are compared by log(step + 1), or by the loss where they start and end.
        """
        params = {"series": [ident(one) for one in series], "tag": _tag_params(tags), "axis": axis}
        return Alignment.model_validate(self._http.json("GET", "/v1/alignment", params=params))

    def compare(
        self,
        series: str | Series,
        first: int | Stage,
        second: int | Stage,
        n: int | None = None,
        job: str | Job | None = None,
    ) -> Comparison:
        """Which of two checkpoints, by their steps, or plateaus a posterior on n samples (default: of the data set)
        prefers, and from which n on.
        """
        params = {"n": n, "job": ident(job) if job is not None else None}
        for side, phase in (("from", first), ("to", second)):
            params |= {f"{side}_stage": phase.id} if isinstance(phase, Stage) else {f"{side}_step": phase}
        return Comparison.model_validate(self._http.json("GET", f"/v1/series/{ident(series)}/compare", params=params))

    def _stages(self, path: str, job: str | Job | None) -> list[Stage]:
        answer = self._http.json("GET", path, params={"job": ident(job) if job is not None else None})
        return [Stage.model_validate(stage) for stage in answer["data"]]


def _tag_params(tags: Mapping[str, Any]) -> list[str]:
    return [f"{name}:{value if isinstance(value, str) else json.dumps(value)}" for name, value in tags.items()]


def _draws_path(job: str | Job, checkpoint: str | Checkpoint) -> str:
    return f"/v1/jobs/{ident(job)}/draws/{ident(checkpoint)}"


def _curve_params(
    measure: str | None,
    job: str | Job | None,
    from_step: int | None,
    to_step: int | None,
    metrics: Iterable[str],
) -> dict[str, Any]:
    return {
        "measure": measure,
        "job": ident(job) if job is not None else None,
        "from_step": from_step,
        "to_step": to_step,
        "metric": list(metrics),
    }


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _from_the_start(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file
