"""Refined LLCs of a job: their data sets reach a real child, and their verdicts the curve."""

from typing import Any

import numpy as np
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from store import leases
from store.blobs import BlobStore
from store.tables import Shard
from tests.api.lab import Lab, data
from tests.worker.conftest import STEPS
from tests.worker.test_draws import finished, kept
from worker import work
from worker.supervisor import Supervisor


def other_data(n: int = 12) -> dict[str, Any]:
    return {"x": np.linspace(1, 3, 3 * n, dtype=np.float32).reshape(n, 3), "y": np.ones(n, np.int64)}


def test_weights_and_data_of_refinements_reach_the_child(lab: Lab, supervisor: Supervisor, series: str) -> None:
    dataset = lab.dataset(other_data())
    refined = {
        "last": {"weights": ["layers.1.*", "layers.0.bias[0:2]"]},
        "other": {"dataset": dataset},
        "same": {"dataset": lab.dataset(data())},
    }
    results = finished(lab, supervisor, series, refined=refined, scales=[{"nbeta": 20, "gamma": 100}])
    for step in STEPS:
        result = results[step, "llc"]
        found = result["quantities"]
        assert set(found) >= {"llc", "wbic", "llc_last", "llc_other", "llc_same", "llc_two_temperatures"}
        assert found["llc_same"]["value"] == found["llc"]["value"]
        assert len({found[name]["value"] for name in ("llc", "llc_last", "llc_other")}) == 3
        file = kept(lab, result)
        free = dict(zip(file.rows, file.draws.num_free, strict=True))
        assert free == {
            "llc": 26,
            "llc at nbeta 20, gamma 100": 26,
            "llc_last": 12,
            "llc_other": 26,
            "llc_same": 26,
        }


def test_a_request_names_the_files_of_refinements_alone(lab: Lab, series: str) -> None:
    dataset = lab.dataset(other_data())
    lab.dataset(other_data(13))
    job = lab.job(series, measures={"llc": {"refined": {"other": {"dataset": dataset}}}})
    blobs = BlobStore(lab.blob_dir)
    with Session(lab.engine) as session, session.begin():
        shard = session.scalars(select(Shard.id).where(Shard.job_id == job, Shard.ordinal == 0)).one()
        lease = leases.claim(session, shard, "worker", 30)
        assert lease is not None
        request = work.request(session, lease, blobs)
    blob = lab.get(f"/v1/datasets/{dataset}").json()["blob"]
    assert request["datasets"] == {dataset: str(blobs.path(blob))}


def test_a_refinement_that_explodes_is_seen_in_the_curve(lab: Lab, supervisor: Supervisor, series: str) -> None:
    far = {"x": np.full((4, 3), 1e30, np.float32), "y": np.array([0, 1, 0, 1])}
    results = finished(lab, supervisor, series, refined={"far": {"dataset": lab.dataset(far)}})
    far_llc = results[0, "llc"]["quantities"]["llc_far"]
    assert (far_llc["value"], far_llc["verdict"]) == (None, "diverged")
    assert "chain 0 at step" in far_llc["reason"]
    assert results[0, "llc"]["verdict"] != "diverged"
    curve = lab.get(f"/v1/series/{series}/curve").json()["points"][0]
    assert curve["llc_far"]["verdict"] == "diverged"
    assert curve["llc"]["verdict"] == results[0, "llc"]["verdict"]
    with lab.engine.connect() as connection:
        shown = connection.execute(
            text("SELECT DISTINCT quantity, verdict, reason FROM llc_curve WHERE series_id = :s AND quantity ~ 'llc'"),
            {"s": series},
        )
        verdicts = {row.quantity: (row.verdict, row.reason) for row in shown}
    assert verdicts["llc_far"] == ("diverged", far_llc["reason"])
