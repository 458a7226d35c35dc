"""The client against the real API."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sqlalchemy import Engine

from lambdahat import ApiError, Client, LambdahatError, ServerUnreachableError
from lambdahat.http import api_error
from llc.draw_files import read_draws
from tests.chaos.proxy import Proxy
from tests.lambdahat import curves, lab
from tests.lambdahat.service import Service


def test_whoami(client: Client) -> None:
    identity = client.whoami()
    assert identity.tenant.name.startswith("test_whoami")
    assert identity.key.name == "first key"
    assert set(identity.key.scopes) == {"read", "write", "admin"}


def test_uploads_once(client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "httpx")
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 3_000_000)
    sha256 = client.upload(path)
    assert client.upload(path.read_bytes()) == sha256
    assert client.upload(str(path)) == sha256
    assert caplog.text.count("/v1/blobs:check") == 3
    assert caplog.text.count("PUT ") == 1


def test_a_large_file_goes_on_after_every_cut(
    service: Service, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambdahat.client.PART_BYTES", 3_000_000)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(40_000_000))
    with Proxy(("127.0.0.1", service.port)) as proxy, Client(f"http://127.0.0.1:{proxy.port}", key) as client:
        cuts, is_over = 0, threading.Event()

        def cut() -> None:
            nonlocal cuts
            while not is_over.wait(0.15):
                proxy.reset()
                cuts += 1

        cutter = threading.Thread(target=cut)
        cutter.start()
        try:
            sha256 = client.upload(path)
        finally:
            is_over.set()
            cutter.join()
        assert cuts > 0
        assert client.upload(path) == sha256
        assert client.usage()["bytes"].used == 40_000_000


def test_several_send_the_same_at_once(service: Service, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is first to write a part, or to complete it, the others find it done."""
    monkeypatch.setattr("lambdahat.client.PART_BYTES", 300_000)
    content = os.urandom(3_000_000)

    def send(_: int) -> str:
        with Client(service.url, key, retries=2) as client:
            return client.upload(content)

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(send, range(4)))) == 1


def test_a_large_file_goes_on_in_another_process(service: Service, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lambdahat.client.PART_BYTES", 100_000)
    content = os.urandom(1_000_000)
    with Client(service.url, key, retries=0) as client:
        sent = 0

        def give_up(request: httpx.Request) -> None:
            nonlocal sent
            sent += request.method == "PATCH"
            if sent == 5:
                raise KeyboardInterrupt

        client._http._http.event_hooks["request"].append(give_up)
        with pytest.raises(KeyboardInterrupt):
            client.upload(content)
    with Client(service.url, key, retries=0) as client:
        offsets: list[str] = []
        client._http._http.event_hooks["request"].append(
            lambda request: offsets.append(request.headers.get("Upload-Offset", ""))
        )
        client.upload(content)
    assert next(offset for offset in offsets if offset) == "400000"


def test_data_model_series_and_back(client: Client) -> None:
    dataset = client.create_dataset("xor", x=torch.zeros(4, 3), y=np.array([0, 1, 1, 0]))
    assert dataset.num_samples == 4
    assert dataset.arrays["x"]["shape"] == [4, 3]
    model = client.create_model("mlp", lab.SPEC)
    assert model.num_parameters == 26
    assert [parameter.name for parameter in model.layout][:2] == ["layers.0.weight", "layers.0.bias"]
    assert client.validate_model(lab.SPEC).layout == model.layout
    series = client.create_series("run", model, dataset.id, {"seed": 1})
    assert (series.num_checkpoints, series.first_step, series.tags) == (0, None, {"seed": 1})
    renamed = client.update_series(series, name="the good one")
    assert (renamed.name, renamed.tags) == ("the good one", {"seed": 1})

    assert client.dataset(dataset) == dataset
    assert client.model(model.id) == model
    assert client.series(series) == renamed
    assert list(client.list_datasets()) == [dataset]
    assert list(client.list_models()) == [model]
    assert list(client.list_series()) == [renamed]
    client.delete_series(series)
    assert list(client.list_series()) == []


def test_data_from_a_file(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "data.safetensors"
    save_file(lab.data(), path)
    assert client.create_dataset("file", path).blob == client.create_dataset("arrays", lab.data()).blob
    with pytest.raises(LambdahatError, match="either a file or arrays"):
        client.create_dataset("both", path, x=np.zeros(1))


def test_checkpoints(client: Client, tmp_path: Path) -> None:
    series = lab.new_series(client, steps=())
    module = torch.nn.Linear(2, 2)
    state = lab.state()
    first = client.add_checkpoint(series, 5, state, {"test_loss": 0.5, "grad_norm": float("nan")})
    assert first.metrics == {"test_loss": 0.5}
    save_file(state, tmp_path / "same.safetensors")
    assert client.add_checkpoint(series, 5, tmp_path / "same.safetensors").id == first.id
    with pytest.raises(ApiError, match="step_exists") as conflict:
        client.add_checkpoint(series, 5, lab.state(1))
    assert conflict.value.status == 409
    with pytest.raises(ApiError, match="missing_parameter") as refused:
        client.add_checkpoint(series, 6, module.state_dict())
    assert refused.value.hint
    assert refused.value.request_id
    client.add_checkpoint(series, 2, lab.state(2))
    assert [checkpoint.step for checkpoint in client.list_checkpoints(series)] == [2, 5]


def test_lists_go_over_pages(client: Client) -> None:
    series = lab.new_series(client, steps=range(101))
    assert [checkpoint.step for checkpoint in client.list_checkpoints(series)] == list(range(101))


def test_a_job_from_start_to_curve(client: Client, engine: Engine) -> None:
    series = lab.new_series(client, steps=curves.STEPS)
    assert client.curve(series).job is None
    assert client.curve(series).points == []
    job = client.run(series, {"llc": {"gamma": 10.0}, "hessian": {}}, checkpoints_per_shard=14)
    assert job.state == "queued"
    assert job.settings["measures"]["llc"]["gamma"] == 10.0
    assert client.run(series, {"llc": None}).settings["measures"]["llc"] is None

    seen: list[float] = []
    worker = threading.Thread(target=lab.work, args=(engine, job))
    worker.start()
    done = client.wait(job, lambda now: seen.append(now.progress.fraction), poll=0.01, timeout=60)
    worker.join()
    assert done.state == "succeeded"
    assert done.is_finished
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    curve = client.curve(series, job=job)
    assert (curve.series, curve.job) == (series.id, job.id)
    assert set(curve.quantities) == set(curves.quantities(0))
    assert [point.step for point in curve.points] == curves.STEPS
    llc = dict(curve.column("llc"))
    assert llc[0].value == pytest.approx(curves.quantities(0)["llc"]["value"])
    assert llc[curves.NOT_CONVERGED].verdict == "not_converged"
    assert llc[curves.DIVERGED].value is None
    part = client.curve(series, "loss", from_step=10, to_step=100)
    assert part.quantities == ["loss"]
    assert [point.step for point in part.points] == [step for step in curves.STEPS if 10 <= step <= 100]
    rows = client.curve_csv(series, measure="loss,llc").splitlines()
    assert rows[0] == "step,loss,loss_std_error,loss_verdict,llc,llc_std_error,llc_verdict"
    assert len(rows) == 1 + len(curves.STEPS)

    assert [(stage.type, stage.from_step, stage.to_step) for stage in client.transitions(series)] == [
        ("A", 11, 60),
        ("B", 180, 700),
    ]
    assert [stage.delta_llc.value for stage in client.stages(series, job)] == [197.0, -241.0]
    client.update_series(series, tags={"seed": 3, "optimizer": "adamw"})
    (rise,) = client.all_transitions("A", 0.98, tags={"seed": 3, "optimizer": "adamw"})
    assert (rise.series, rise.job, rise.family) == (series.id, job.id, "mlp")
    assert (rise.from_step_low, rise.from_step_high, rise.probability) == (9, 13, 0.99)
    assert [fall.type for fall in client.all_transitions(from_step=100, min_delta_llc=200.0)] == ["B"]
    assert list(client.all_transitions("neither", family="mlp")) == []
    assert list(client.all_transitions(tags={"seed": 4})) == []
    found = client.compare(series, curves.STEPS[2], curves.STEPS[-1], n=1000)
    assert (found.first.from_step, found.second.to_step, found.n) == (curves.STEPS[2], curves.STEPS[-1], 1000)
    losses = [curves.quantities(phase.from_step)["loss"]["value"] for phase in (found.first, found.second)]
    assert found.loss_term == pytest.approx(1000 * (losses[1] - losses[0]))
    assert found.preferred == "second"
    results = list(client.results(job))
    assert len(results) == 3 * len(curves.STEPS)
    assert {r.reason for r in results if r.step == curves.NOT_CONVERGED and r.measure == "llc"} == {
        "R-hat is 1.31, above 1.05"
    }
    kinds = [event.kind for event in client.events(job)]
    assert kinds[0] == "job.queued"
    assert kinds[-1] == "job.succeeded"
    last = list(client.events(job))[-2]
    assert [event.kind for event in client.events(job, after=last.id)] == ["job.succeeded"]
    assert [found.id for found in client.list_jobs(series)][-1] == job.id


def test_draws(client: Client, engine: Engine, environment: dict[str, str], tmp_path: Path) -> None:
    series = lab.new_series(client, steps=(0, 5))
    job = client.run(series)
    lab.work_with_draws(engine, job, Path(environment["LAMBDAHAT_BLOB_DIR"]))
    (result, _) = [result for result in client.results(job) if result.draws is not None]
    draws = client.draws(job, result.checkpoint)
    assert draws["losses"].shape == (1, 4, 50)
    assert np.isnan(draws["acceptance"]).all()
    assert draws.rows == ("llc",)
    assert draws.settings["num_chains"] == 4

    (_, last) = client.list_checkpoints(series)
    kept = read_draws(client.save_draws(job, last, tmp_path / "draws.safetensors"))
    assert np.array_equal(kept.draws.losses, client.draws(job, last)["losses"])
    assert not np.array_equal(kept.draws.losses, draws["losses"])
    assert client.save_draws(job, last, str(tmp_path / "draws.nc"), format="netcdf").read_bytes()[1:4] == b"HDF"
    with pytest.raises(ApiError, match="not_found"):
        client.save_draws(job, last, tmp_path / "none", measure="loss")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draws.nc", "draws.safetensors"]


def test_cancel(client: Client) -> None:
    series = lab.new_series(client)
    job = client.run(series)
    assert client.cancel(job).state == "cancelled"
    assert client.cancel(job.id).is_finished
    assert next(client.list_jobs()).id == job.id


def test_waiting_has_an_end(client: Client) -> None:
    job = client.run(lab.new_series(client))
    with pytest.raises(TimeoutError, match=f"'{job.id}' is still queued"):
        client.wait(job, poll=0.01, timeout=0.05)


def test_errors_say_which_fields_are_wrong(client: Client) -> None:
    series = lab.new_series(client)
    with pytest.raises(ApiError, match="num_chains") as refused:
        client.run(series, {"llc": {"num_chains": 1}})
    assert (refused.value.status, refused.value.code) == (422, "invalid_request")
    assert any("num_chains" in error["location"] for error in refused.value.errors)
    with pytest.raises(ApiError, match="empty_series"):
        client.run(lab.new_series(client, steps=()))


def test_a_tenant_sees_its_own_only(client: Client, service: Service, engine: Engine) -> None:
    series = lab.new_series(client)
    with Client(service.url, lab.new_key(engine, "other")) as other:
        assert list(other.list_series()) == []
        with pytest.raises(ApiError) as refused:
            other.series(series)
    assert refused.value.status == 404


def test_url_and_key_come_from_the_environment(service: Service, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMBDAHAT_URL", service.url + "/")
    monkeypatch.setenv("LAMBDAHAT_KEY", key)
    with Client() as client:
        assert client.url == service.url
        assert client.whoami().key.name == "first key"
    with Client(key="lh_nonsense") as client, pytest.raises(ApiError) as refused:
        client.whoami()
    assert refused.value.status == 401
    with pytest.raises(LambdahatError, match="no address"):
        Client("localhost:8000")


def test_asks_again_while_the_server_restarts(environment: dict[str, str], key: str) -> None:
    service = Service(environment)
    with Client(service.url, key, retries=0) as hasty, pytest.raises(ServerUnreachableError, match=service.url):
        hasty.whoami()
    starter = threading.Timer(0.5, service.start)
    starter.start()
    try:
        with Client(service.url, key, retries=12) as client:
            # Even what is not idempotent: a connection that was refused has carried nothing.
            assert client.create_model("mlp", lab.SPEC).num_parameters == 26
    finally:
        starter.join()
        service.stop()


def test_an_answer_that_is_no_problem_is_an_error_too() -> None:
    page = httpx.Response(502, text="<html>bad gateway</html>")
    error = api_error(page)
    assert (error.status, error.code) == (502, "http_error")
    assert "bad gateway" in error.detail
