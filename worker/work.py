"""What a shard's child is told: paths of files and settings, read from the store in one short transaction."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from llc.errors import InputError
from llc.settings import ChainSettings
from store.blobs import BlobStore
from store.jobs import settings_of
from store.leases import Lease
from store.results import VOID
from store.tables import Checkpoint, Dataset, Job, Model, Result, Series


def request(session: Session, lease: Lease, blobs: BlobStore) -> dict[str, Any]:
    """The request for `worker.child`. Raises: InputError `settings_unknown`, `blob_missing`."""
    settings = settings_of(lease.settings)
    if lease.kind == "stages":
        llc, (curve, members) = settings.measures.llc, _curves(session, lease.job_id)
        return {
            "kind": "stages",
            "curve": curve,
            "members": members,
            "stages": settings.stages.model_dump(),
            "stability": llc.stability.model_dump() if llc and llc.stability else None,
        }
    model, dataset = session.execute(
        select(Model.spec, Dataset.blob)
        .join(Series, Series.model_id == Model.id)
        .join(Dataset, Dataset.id == Series.dataset_id)
        .join(Job, Job.series_id == Series.id)
        .where(Job.id == lease.job_id)
    ).one()
    found = session.execute(
        select(Checkpoint.id, Checkpoint.blob).where(Checkpoint.id.in_(lease.checkpoint_ids)).order_by(Checkpoint.step)
    ).all()
    return {
        "kind": lease.kind,
        "model": model,
        "dataset": _path(blobs, dataset, "the data set"),
        "datasets": _others(session, lease, settings.measures.llc, blobs),
        "checkpoints": [{"id": row.id, "path": _path(blobs, row.blob, f"checkpoint '{row.id}'")} for row in found],
        "plan": session.scalars(select(Job.plan).where(Job.id == lease.job_id)).one(),
        "measures": settings.measures.model_dump(mode="json"),
    }


def _others(session: Session, lease: Lease, llc: ChainSettings | None, blobs: BlobStore) -> dict[str, str]:
    """The files of the data sets that refined LLCs name, by their ids."""
    wanted = llc.datasets if llc else []
    query = select(Dataset.id, Dataset.blob).join(Job, Job.tenant_id == Dataset.tenant_id)
    found = session.execute(query.where(Job.id == lease.job_id, Dataset.id.in_(wanted)))
    return {row.id: _path(blobs, row.blob, f"data set '{row.id}'") for row in found}


def _curves(session: Session, job_id: str) -> tuple[dict[str, list[Any]], list[dict[str, list[Any]]]]:
    """Steps, LLC and loss with their errors of a job so far, and the LLCs of its chains, in the order of steps; None
    where there is no number, or one that says nothing of the checkpoint: what `llc.stages.Curve.of` takes. And the same
    as each member of its ensemble has it, if there is one.
    """
    details = Result.details["per_chain"], Result.details["members"]
    measured = session.execute(
        select(Checkpoint.step, Result.quantities, Result.verdict, *details)
        .join(Checkpoint, Checkpoint.id == Result.checkpoint_id)
        .where(Result.job_id == job_id, Result.measure.in_(("llc", "loss")))
    )
    points: dict[int, dict[str, Any]] = {}
    for step, quantities, verdict, per_chain, members in measured:
        chains = {} if per_chain is None else {"per_chain": per_chain}
        point = points.setdefault(step, {})
        point |= {} if verdict in VOID else quantities | chains
        point |= {} if members is None else {"members": members}
    curve: dict[str, list[Any]] = {"step": sorted(points)}
    curve["per_chain"] = [points[step].get("per_chain") for step in curve["step"]]
    for name in ("llc", "loss"):
        found = [points[step].get(name, {}) for step in curve["step"]]
        curve[name] = [quantity.get("value") for quantity in found]
        curve[f"{name}_std_error"] = [quantity.get("std_error") for quantity in found]
    found = [points[step].get("members", []) for step in curve["step"]]
    count = max(map(len, found), default=0)
    return curve, [curve | _member([members[number : number + 1] for members in found]) for number in range(count)]


def _member(found: list[list[dict[str, Any]]]) -> dict[str, list[Any]]:
    """The columns that are a member's own; found: what it has at each step, none or one."""
    believed = [next((one for one in some if one["verdict"] not in VOID), {}) for some in found]
    return {
        "llc": [one.get("llc") for one in believed],
        "llc_std_error": [one.get("std_error") for one in believed],
        "per_chain": [one.get("per_chain") for one in believed],
    }


def _path(blobs: BlobStore, sha256: str, what: str) -> str:
    path = blobs.path(sha256)
    if not path.is_file():
        raise InputError(
            "blob_missing", f"the file of {what}, {sha256}, is gone from the blob store", "upload it again"
        )
    return str(path)
