"""Jobs from post to curve. The results are put in by hand: what a worker finds is its own tests' matter."""

import csv
import io
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from llc.settings import JobSettings
from store import leases
from store.tables import Result, Shard
from tests.api.lab import Lab, refused
from tests.api.worked import estimate, stage, work

STEPS = (0, 10, 100)


@pytest.fixture
def series(lab: Lab) -> str:
    """A series of three checkpoints."""
    series = lab.series()
    for step in STEPS:
        lab.checkpoint(series, step)
    return series


def test_a_job_is_accepted_and_waits(lab: Lab, series: str) -> None:
    body = {
        "series": series,
        "measures": {"llc": {"gamma": 7, "sampler": {"epsilon": 1e-4}}},
        "checkpoints_per_shard": 2,
    }
    response = lab.post("/v1/jobs", json=body)
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["series"], job["state"], job["error"]) == (series, "queued", None)
    assert job["settings"]["measures"]["llc"]["gamma"] == 7
    assert JobSettings.model_validate(job["settings"]).measures.loss is not None
    progress = job["progress"]
    assert progress["shards"] == {"queued": 2, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
    assert progress["total"] > 0
    assert (progress["done"], progress["fraction"], progress["rate"], progress["seconds_left"]) == (0, 0, None, None)
    assert lab.get(f"/v1/jobs/{job['id']}").json() == job
    assert lab.get("/v1/jobs", params={"series": series}).json()["data"] == [job]
    assert lab.get("/v1/jobs", params={"series": lab.series()}).json()["data"] == []


def test_a_job_may_follow_a_series_that_has_nothing_yet(lab: Lab) -> None:
    """Until it is asked to finish, which may be asked again."""
    series = lab.series()
    made = lab.post("/v1/jobs", json={"series": series, "follow": True})
    assert (made.status_code, made.json()["following"], made.json()["state"]) == (202, True, "queued")
    job = made.json()["id"]
    assert "follow" not in made.json()["settings"]
    lab.checkpoint(series, 0)
    for _ in range(2):
        finishing = lab.post(f"/v1/jobs/{job}/finish")
        assert (finishing.status_code, finishing.json()["following"]) == (202, False)
        assert finishing.json()["progress"]["shards"]["queued"] == 1
    work(lab, job, {0: 1.5})
    assert lab.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    refused(lab.post("/v1/jobs/job_unknown/finish"), 404, "not_found")


def test_a_pilot_has_to_have_checkpoints(lab: Lab) -> None:
    body = {"series": lab.series(), "follow": True, "measures": {"llc": "auto"}}
    refused(lab.post("/v1/jobs", json=body), 422, "empty_series")


def test_the_defaults_of_a_job_are_the_settings_own(lab: Lab, series: str) -> None:
    job = lab.post("/v1/jobs", json={"series": series}).json()
    assert job["settings"] == JobSettings().model_dump(mode="json")


def test_a_job_of_nothing_is_refused(lab: Lab) -> None:
    series = lab.series()
    before = lab.everything()
    problem = refused(lab.post("/v1/jobs", json={"series": series}), 422, "empty_series")
    assert problem["hint"]
    assert lab.everything() == before


def post_with(lab: Lab, series: str, **llc: Any) -> httpx.Response:
    return lab.post("/v1/jobs", json={"series": series, "measures": {"loss": None, "llc": llc}})


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        ("layers.7.*", "no_such_parameter"),
        ("layers.0.weight[0:2, 0, 0]", "bad_pattern"),
        ("layers.*[9]", "bad_pattern"),
    ],
)
def test_weights_that_the_model_does_not_have_are_refused(lab: Lab, series: str, pattern: str, code: str) -> None:
    before = lab.everything()
    refined = {"good": {"weights": ["layers.0.weight[0:2, :]"]}, "bad": {"weights": ["layers.0.bias", pattern]}}
    assert refused(post_with(lab, series, refined=refined), 422, code)["hint"]
    assert lab.everything() == before


def test_refinements_look_at_ones_own_data_sets_if_they_fit(lab: Lab, other_lab: Lab, series: str) -> None:
    def post(dataset: str) -> httpx.Response:
        return post_with(lab, series, refined={"a": {"dataset": dataset}})

    assert post(lab.dataset()).status_code == 202
    wide = {"x": np.zeros((4, 5), np.float32), "y": np.zeros(4, np.int64)}
    refused(post(lab.dataset(wide)), 422, "wrong_inputs")
    refused(post(other_lab.dataset()), 404, "not_found")
    refused(post("dst_" + 32 * "0"), 404, "not_found")
    refused(post("nonsense"), 404, "not_found")


def test_work_counts_every_row(lab: Lab, series: str) -> None:
    refined = {"a": {"weights": ["*"]}, "b": {"weights": ["*"]}}
    plain = post_with(lab, series).json()["progress"]["total"]
    more = post_with(lab, series, refined=refined, scales=[{"nbeta": 3, "gamma": 2}])
    assert more.json()["progress"]["total"] == 4 * plain


def test_a_cancelled_job_ends_and_can_be_cancelled_again(lab: Lab, series: str) -> None:
    job = lab.job(series)
    response = lab.post(f"/v1/jobs/{job}/cancel")
    assert response.status_code == 202
    assert response.json()["state"] == "cancelled"
    assert response.json()["finished_at"] is not None
    again = lab.post(f"/v1/jobs/{job}/cancel")
    assert (again.status_code, again.json()) == (202, response.json())


def fail(lab: Lab, job: str, ordinal: int) -> str:
    """End a shard for good; its id."""
    with Session(lab.engine) as session, session.begin():
        (shard,) = session.scalars(select(Shard.id).where(Shard.job_id == job, Shard.ordinal == ordinal))
        lease = leases.claim(session, shard, "worker", 30)
        assert lease is not None
        leases.fail(session, lease, {"code": "file_error", "detail": "the disk is gone"}, permanent=True)
    return shard


def states(lab: Lab, job: str) -> list[tuple[str, str, int]]:
    """(kind, state, attempt) of every shard."""
    with Session(lab.engine) as session:
        shards = session.scalars(select(Shard).where(Shard.job_id == job).order_by(Shard.ordinal))
        return [(shard.kind, shard.state, shard.attempt) for shard in shards]


def test_a_retried_job_runs_again_what_failed_and_nothing_else(lab: Lab, series: str) -> None:
    llc = {0: 1.5, 10: 2.0, 100: 3.0}
    job = lab.job(series, checkpoints_per_shard=1)
    fail(lab, job, 1)
    work(lab, job, llc, [stage(0, "plateau", None, 0, 100)])
    failed = lab.get(f"/v1/jobs/{job}").json()
    assert failed["state"] == "failed"
    assert failed["error"]["first"]["code"] == "file_error"
    before = lab.get(f"/v1/jobs/{job}/results").json()["data"]
    assert len(before) == 4

    again = lab.post(f"/v1/jobs/{job}/retry")
    assert again.status_code == 202
    assert (again.json()["state"], again.json()["error"], again.json()["finished_at"]) == ("queued", None, None)
    measured = [("measure", "succeeded", 1), ("measure", "queued", 0), ("measure", "succeeded", 1)]
    assert states(lab, job) == [*measured, ("stages", "queued", 0)]
    work(lab, job, llc, [stage(0, "plateau", None, 0, 100)])
    assert lab.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    after = lab.get(f"/v1/jobs/{job}/results").json()["data"]
    assert [row for row in after if row in before] == before
    assert len(after) == 6
    assert lab.get(f"/v1/series/{series}/transitions", params={"job": job}).json()["data"] == []


def test_a_cancelled_job_can_be_taken_up_again(lab: Lab, series: str) -> None:
    job = lab.job(series, checkpoints_per_shard=1)
    lab.post(f"/v1/jobs/{job}/cancel")
    assert lab.post(f"/v1/jobs/{job}/retry").json()["state"] == "queued"
    work(lab, job, {0: 1.5, 10: 2.0, 100: 3.0})
    assert lab.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    kinds = [event["kind"] for event in lab.get(f"/v1/jobs/{job}/events").json()["data"]]
    assert kinds[:4] == ["job.queued", "job.cancel_requested", "job.cancelled", "job.retried"]


def test_a_pilot_that_failed_is_run_again_before_the_rest(lab: Lab, series: str) -> None:
    job = lab.job(series, measures={"llc": "auto"}, checkpoints_per_shard=3)
    fail(lab, job, 2)
    assert lab.get(f"/v1/jobs/{job}").json()["state"] == "failed"
    lab.post(f"/v1/jobs/{job}/retry")
    assert {(kind, state) for kind, state, _ in states(lab, job)} == {
        ("measure", "queued"),
        ("stages", "queued"),
        ("calibrate", "queued"),
    }
    with Session(lab.engine) as session:
        due = session.scalars(select(Shard.kind).where(Shard.job_id == job, Shard.run_at <= func.now())).all()
    assert due == ["calibrate"]


def test_there_is_nothing_to_retry_in_a_job_that_goes_well(lab: Lab, series: str) -> None:
    job = lab.job(series)
    before = lab.everything()
    assert lab.post(f"/v1/jobs/{job}/retry").json()["state"] == "queued"
    assert lab.everything() == before
    with Session(lab.engine) as session, session.begin():
        shard = session.scalars(select(Shard.id).where(Shard.job_id == job, Shard.kind == "measure")).first()
        assert shard is not None
        assert leases.claim(session, shard, "worker", 30) is not None
    lab.post(f"/v1/jobs/{job}/cancel")
    assert refused(lab.post(f"/v1/jobs/{job}/retry"), 409, "job_ending")["hint"]


def test_events_tell_what_happened(lab: Lab, series: str) -> None:
    job = lab.job(series)
    lab.post(f"/v1/jobs/{job}/cancel")
    events = lab.get(f"/v1/jobs/{job}/events").json()["data"]
    assert [event["kind"] for event in events] == ["job.queued", "job.cancel_requested", "job.cancelled"]
    later = lab.get(f"/v1/jobs/{job}/events", params={"after": events[0]["id"]}).json()["data"]
    assert later == events[1:]


def test_a_finished_job_has_results(lab: Lab, series: str) -> None:
    job = lab.job(series, checkpoints_per_shard=2)
    work(lab, job, {0: 1.5, 10: None, 100: 3.0})
    done = lab.get(f"/v1/jobs/{job}").json()
    assert done["state"] == "succeeded"
    assert done["progress"]["fraction"] == 1
    assert done["progress"]["rate"] is None or done["progress"]["rate"] > 0

    pages = [lab.get(f"/v1/jobs/{job}/results", params={"limit": 4}).json()]
    pages.append(lab.get(f"/v1/jobs/{job}/results", params={"limit": 4, "after": pages[0]["next"]}).json())
    found = [row for page in pages for row in page["data"]]
    assert [(row["step"], row["measure"]) for row in found] == [(s, m) for s in STEPS for m in ("llc", "loss")]
    diverged = found[2]
    health = {"verdict": "diverged", "reason": "the chains left"}
    assert diverged["quantities"] == {"llc": {"value": None, "std_error": 0.5, **health}}
    assert (diverged["verdict"], diverged["reason"]) == ("diverged", "the chains left")
    assert diverged["details"] == {"draws": [1, 2]}
    assert diverged["checkpoint"].startswith("ckp_")


def test_a_made_up_results_cursor_is_refused(lab: Lab, series: str) -> None:
    refused(lab.get(f"/v1/jobs/{lab.job(series)}/results", params={"after": "e30"}), 422, "bad_cursor")


def test_the_curve(lab: Lab, series: str) -> None:
    empty = lab.get(f"/v1/series/{series}/curve").json()
    assert empty == {"series": series, "job": None, "quantities": [], "points": []}
    job = lab.job(series)
    work(lab, job, {0: 1.5, 10: None, 100: 3.0})
    lab.job(series)  # newer, but with nothing to show yet

    curve = lab.get(f"/v1/series/{series}/curve").json()
    assert (curve["series"], curve["job"], curve["quantities"]) == (series, job, ["loss", "llc"])
    assert [point["step"] for point in curve["points"]] == list(STEPS)
    assert curve["points"][0]["llc"] == {"value": 1.5, "std_error": 0.5, "verdict": "good"}
    assert curve["points"][1]["llc"] == {"value": None, "std_error": 0.5, "verdict": "diverged"}
    assert curve["points"][2]["loss"]["value"] == 0.25
    assert curve["points"][0]["checkpoint"].startswith("ckp_")

    part = lab.get(f"/v1/series/{series}/curve", params={"measure": "llc", "from_step": 1, "to_step": 100}).json()
    assert part["quantities"] == ["llc"]
    assert part["points"] == [{k: v for k, v in point.items() if k != "loss"} for point in curve["points"][1:]]
    both = lab.get(f"/v1/series/{series}/curve", params={"measure": "llc,loss,hessian", "job": job}).json()
    assert both == curve


def test_numbers_of_a_curve_come_back_as_they_were(lab: Lab, series: str) -> None:
    numbers = {0: 1.7976931348623157e308, 10: 5e-324, 100: -(0.1 + 0.2)}
    work(lab, lab.job(series), dict(numbers))
    path = f"/v1/series/{series}/curve"
    assert {point["step"]: point["llc"]["value"] for point in lab.get(path).json()["points"]} == numbers
    rows = list(csv.DictReader(io.StringIO(lab.get(path, params={"format": "csv"}).text)))
    assert {int(row["step"]): float(row["llc"]) for row in rows} == numbers


def test_quantities_of_a_measure_in_a_curve(lab: Lab, series: str) -> None:
    """With a verdict of their own, at some steps only, of any name."""
    job = lab.job(series)
    work(lab, job, {0: 1.5, 10: None, 100: 3.0})
    odd = 'llc_a"\\\n,é'
    more = {"wbic": {"value": 2, "std_error": None, "verdict": "too_hot", "reason": "hot"}, odd: estimate(4.0)}
    with Session(lab.engine) as session, session.begin():
        of_first = Result.job_id == job, Result.measure == "llc", Result.verdict == "good"
        for result in session.scalars(select(Result).where(*of_first)):
            result.quantities = result.quantities | more
        session.execute(update(Result).where(Result.job_id == job, Result.measure == "loss").values(quantities={}))
    path, shown = f"/v1/series/{series}/curve", {"std_error": None, "verdict": "too_hot", "value": 2}
    curve = lab.get(path).json()
    assert curve["quantities"] == ["llc", odd, "wbic"]
    first, second, third = curve["points"]
    assert (first["wbic"], third["wbic"], first[odd]["verdict"]) == (shown, shown, "good")
    assert set(second) == {"step", "checkpoint", "llc"}
    assert second["llc"]["verdict"] == "diverged"
    part = lab.get(path, params={"measure": "wbic,loss"}).json()
    assert (part["quantities"], part["points"][0]) == (["wbic"], {k: first[k] for k in ("step", "checkpoint", "wbic")})
    assert [point["step"] for point in part["points"]] == list(STEPS)
    assert lab.get(path, params={"measure": "llc"}).json() == curve
    assert [point["step"] for point in lab.get(path, params={"measure": "wbic"}).json()["points"]] == [0, 100]
    rows = list(csv.DictReader(io.StringIO(lab.get(path, params={"format": "csv"}).text)))
    assert [(row["wbic"], row[odd]) for row in rows] == [("2", "4"), ("", ""), ("2", "4")]


def test_the_curve_as_csv(lab: Lab, series: str) -> None:
    work(lab, lab.job(series), {0: 1.5, 10: None, 100: 3.0})
    response = lab.get(f"/v1/series/{series}/curve", params={"format": "csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(response.text)))
    assert rows == [
        ["step", "loss", "loss_std_error", "loss_verdict", "llc", "llc_std_error", "llc_verdict"],
        ["0", "0.25", "0.5", "good", "1.5", "0.5", "good"],
        ["10", "0.25", "0.5", "good", "", "0.5", "diverged"],
        ["100", "0.25", "0.5", "good", "3", "0.5", "good"],
    ]


def test_a_quantity_that_the_job_has_not_is_named(lab: Lab, series: str) -> None:
    path = f"/v1/series/{series}/curve"
    job = lab.job(series)
    assert lab.get(path, params={"measure": "lcl", "job": job}).json()["points"] == []
    work(lab, job, {0: 1.5, 10: None, 100: 3.0})
    problem = refused(lab.get(path, params={"measure": "lcl"}), 422, "unknown_measure")
    assert "llc, loss" in problem["hint"]
    assert lab.get(path, params={"measure": "llc", "from_step": 101}).json()["points"] == []
    refused(lab.get(path, params={"measure": "a;b\0"}), 422, "unknown_measure")


def test_a_job_of_another_series_is_not_this_ones(lab: Lab, series: str) -> None:
    other = lab.series()
    lab.checkpoint(other, 0)
    job = lab.job(other)
    for name in ("curve", "stages", "transitions"):
        refused(lab.get(f"/v1/series/{series}/{name}", params={"job": job}), 404, "not_found")


def test_stages_and_transitions(lab: Lab, series: str) -> None:
    job = lab.job(series)
    assert lab.get(f"/v1/series/{series}/stages").json() == {"series": series, "job": None, "data": []}
    work(lab, job, {0: 1.5, 10: None, 100: 3.0})
    stages = lab.get(f"/v1/series/{series}/stages").json()
    transitions = lab.get(f"/v1/series/{series}/transitions", params={"job": job}).json()
    assert [stage["kind"] for stage in stages["data"]] == ["plateau", "transition"]
    assert transitions == {"series": series, "job": job, "data": stages["data"][1:]}
    (found,) = transitions["data"]
    assert (found["type"], found["from_step"], found["to_step"]) == ("B", 10, 100)
    assert found["delta_loss"] == {"value": -0.5, "std_error": None}
    assert found["delta_llc"] == {"value": 3.25, "std_error": 0.5}
    assert found["details"] == {"z": 6.5}
