"""What workers leave behind, without a worker: results and stages of jobs."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import leases
from store.ids import new_id
from store.tables import Shard
from tests.api.lab import Lab


def estimate(value: float | None, std_error: float | None = 0.5) -> dict[str, float | None]:
    """As JSON has it."""
    return {"value": value, "std_error": std_error}


def work(lab: Lab, job: str, llc: Mapping[int, float | None], stages: Sequence[dict[str, Any]] | None = None) -> None:
    """End every shard of a job that is due as a worker does: with a loss, the given llc, and stages."""
    steps = {checkpoint["id"]: checkpoint["step"] for checkpoint in checkpoints(lab, job)}
    if stages is None:
        stages = [stage(0, "plateau", None, 0, 10), stage(1, "transition", "B", 10, 100)]
    with Session(lab.engine) as session, session.begin():
        stages_last = select(Shard).where(Shard.job_id == job).order_by(Shard.kind == "stages", Shard.ordinal)
        for shard in session.scalars(stages_last).all():
            if lease := leases.claim(session, shard.id, "worker", 30):
                found = [row for checkpoint in lease.checkpoint_ids for row in results(checkpoint, steps, llc)]
                leases.finish(session, lease, found, stages if lease.kind == "stages" else [])


def checkpoints(lab: Lab, job: str) -> list[dict[str, Any]]:
    """Those of a job's series."""
    return lab.get(f"/v1/series/{lab.get(f'/v1/jobs/{job}').json()['series']}/checkpoints").json()["data"]


def results(checkpoint: str, steps: dict[str, int], llc: Mapping[int, float | None]) -> list[dict[str, Any]]:
    """A loss and an LLC."""
    value = llc[steps[checkpoint]]
    rest = {"checkpoint_id": checkpoint, "details": {"draws": [1, 2]}, "draws": None}
    verdict, reason = ("good", "") if value is not None else ("diverged", "the chains left")
    return [
        {**rest, "measure": "loss", "quantities": {"loss": estimate(0.25)}, "verdict": "good", "reason": ""},
        {**rest, "measure": "llc", "quantities": {"llc": estimate(value)}, "verdict": verdict, "reason": reason},
    ]


def stage(ordinal: int, kind: str, type_: str | None, from_step: int, to_step: int) -> dict[str, Any]:
    """A row of `stages`."""
    return {
        "id": new_id("stg"),
        "ordinal": ordinal,
        "kind": kind,
        "type": type_,
        "from_step": from_step,
        "from_step_low": from_step,
        "from_step_high": from_step + 2,
        "to_step": to_step,
        "to_step_low": to_step - 1,
        "to_step_high": to_step,
        "probability_a": 0.95 if type_ == "A" else 0.02,
        "probability_b": 0.96 if type_ == "B" else 0.03,
        "probability_neither": 0.02,
        "delta_loss": -0.5,
        "delta_loss_std_error": None,
        "delta_llc": 3.25,
        "delta_llc_std_error": 0.5,
        "survival": {"A": None, "B": 0.75}.get(type_ or ""),
        "details": {"z": 6.5},
    }
