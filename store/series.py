"""Series and their checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from llc.checkpoints import called, check_checkpoint
from llc.confined import convert_torch_file
from llc.layout import Layout
from llc.models import MODEL_SPEC
from llc.torch_files import is_torch_file
from store import owners
from store.blobs import BlobStore
from store.datasets import check_fits
from store.errors import ConflictError
from store.ids import new_id
from store.owned import find
from store.tables import Checkpoint, Dataset, Job, Model, Series


@dataclass(frozen=True)
class Extent:
    """What a series has: how many checkpoints, from which step to which."""

    num_checkpoints: int = 0
    first_step: int | None = None
    last_step: int | None = None


def create_series(
    session: Session, tenant_id: str, name: str, model_id: str, dataset_id: str, tags: dict[str, Any]
) -> Series:
    """An empty series. Raises: NotFoundError; InputError if the model can't be evaluated on the data set."""
    model = find(session, Model, tenant_id, model_id)
    dataset = find(session, Dataset, tenant_id, dataset_id)
    check_fits(model, dataset)
    series = Series(
        id=new_id("ser"), tenant_id=tenant_id, name=name, model_id=model_id, dataset_id=dataset_id, tags=tags
    )
    session.add(series)
    session.flush()
    return series


def extents(session: Session, series_ids: Sequence[str]) -> dict[str, Extent]:
    """The extent of each of these series."""
    query = (
        select(Checkpoint.series_id, func.count(), func.min(Checkpoint.step), func.max(Checkpoint.step))
        .where(Checkpoint.series_id.in_(series_ids))
        .group_by(Checkpoint.series_id)
    )
    found = {series_id: Extent(count, first, last) for series_id, count, first, last in session.execute(query)}
    return {series_id: found.get(series_id, Extent()) for series_id in series_ids}


def delete_series(session: Session, tenant_id: str, series_id: str) -> None:
    """Delete a series with its checkpoints, jobs and results. Raises: NotFoundError; ConflictError `job_running`."""
    series = find(session, Series, tenant_id, series_id, lock="delete")
    alive = select(Job.id).where(Job.series_id == series.id, Job.state.in_(("queued", "running"))).limit(1)
    job_id = session.scalar(alive)
    if job_id is not None:
        raise ConflictError(
            "job_running",
            f"job '{job_id}' of series '{series.id}' has not ended",
            f"wait for it, or POST /v1/jobs/{job_id}/cancel first",
        )
    session.delete(series)
    session.flush()


def add_checkpoint(
    session: Session,
    blobs: BlobStore,
    tenant_id: str,
    series_id: str,
    step: int,
    sha256: str,
    metrics: dict[str, float],
) -> tuple[Checkpoint, bool]:
    """The checkpoint of a step, and whether it is new: the same blob again changes nothing. Of a torch file, the
    safetensors file made of it is kept.

    Raises: NotFoundError; ConflictError `step_exists`; InputError if the file does not fill the model.
    """
    series = find(session, Series, tenant_id, series_id)
    owners.require_owned(session, tenant_id, sha256)
    there = _at_step(session, series_id, step)
    if there is not None:
        return _same(there, sha256), False
    model = find(session, Model, tenant_id, series.model_id)
    session.commit()  # the file may be large: no transaction stays open while it is read
    layout, blob, source = MODEL_SPEC.validate_python(model.spec).layout(), sha256, None
    if is_torch_file(blobs.path(sha256)):
        blob, source = _converted(session, blobs, tenant_id, sha256, layout), sha256
    else:
        check_checkpoint(blobs.path(sha256), layout)
    find(session, Series, tenant_id, series_id, lock="keep")
    values = {"blob": blob, "source": source, "metrics": metrics}
    added = insert(Checkpoint).values(id=new_id("ckp"), tenant_id=tenant_id, series_id=series_id, step=step, **values)
    checkpoint = session.scalar(added.on_conflict_do_nothing().returning(Checkpoint))
    if checkpoint is not None:
        return checkpoint, True
    there = _at_step(session, series_id, step)
    assert there is not None, "checkpoints are only deleted with their series, whose row is locked"
    return _same(there, sha256), False


def checkpoints(session: Session, series_id: str, after_step: int | None, limit: int) -> Sequence[Checkpoint]:
    """At most `limit` checkpoints of a series by step, from the one after `after_step`."""
    query = select(Checkpoint).where(Checkpoint.series_id == series_id).order_by(Checkpoint.step).limit(limit)
    return session.scalars(query if after_step is None else query.where(Checkpoint.step > after_step)).all()


def _at_step(session: Session, series_id: str, step: int) -> Checkpoint | None:
    return session.scalar(select(Checkpoint).where(Checkpoint.series_id == series_id, Checkpoint.step == step))


def _converted(session: Session, blobs: BlobStore, tenant_id: str, sha256: str, layout: Layout) -> str:
    """The blob that a torch file is made, once for each tenant. Raises: InputError if it does not fill the model."""
    made = select(Checkpoint.blob).where(Checkpoint.tenant_id == tenant_id, Checkpoint.source == sha256).limit(1)
    known = session.scalar(made)
    session.commit()
    what = called(blobs.path(sha256))
    if known is not None:
        check_checkpoint(blobs.path(known), layout, what)
        return known
    with blobs.scratch() as folder:
        folder.mkdir()
        file = folder / "converted"
        convert_torch_file(blobs.path(sha256), file, blobs.room())
        check_checkpoint(file, layout, what)
        blob, size = blobs.adopt(file)
    owners.add_owner(session, tenant_id, blob, size)
    return blob


def _same(there: Checkpoint, sha256: str) -> Checkpoint:
    if sha256 not in (there.blob, there.source):
        raise ConflictError(
            "step_exists",
            f"series '{there.series_id}' has a checkpoint of step {there.step} already, with other parameters",
            "a checkpoint is never replaced; post another run as its own series",
        )
    return there
