"""What nothing refers to is collected, and nothing else."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from store import leases, owners, tenants, uploads
from store.blobs import BlobStore
from store.ids import new_id
from store.settings import StoreSettings
from store.tables import Checkpoint, Dataset, Result, Series
from tests.store.test_leases import Jobs, jobs, result
from worker.collector import collect

__all__ = ["jobs"]

OLD = 3600.0


class Shelf:
    """Blobs of a tenant, on a disk of their own. (The database has other tests' too.)"""

    def __init__(self, jobs: Jobs, root: Path) -> None:
        self.jobs, self.blobs = jobs, BlobStore(root)
        url = jobs.engine.url.render_as_string(hide_password=False)
        given = {"database_url": url, "broker_url": "memory://", "blob_dir": root}
        self.settings = StoreSettings.model_validate(given | {"draws_days": 1.0})

    def put(self, content: bytes) -> str:
        """A blob that the tenant posted."""
        sha256, size = self.blobs.put(content)
        with self.jobs.session() as session:
            owners.add_owner(session, self.jobs.tenant_id, sha256, size)
        return sha256

    def age(self, *hashes: str) -> None:
        """Nobody has touched them for two hours."""
        with self.jobs.session() as session:
            session.execute(
                text("UPDATE blob_owners SET touched_at = now() - '2 hours'::interval WHERE sha256 = ANY(:names)"),
                {"names": list(hashes)},
            )
        for sha256 in hashes:
            then = time.time() - 2 * OLD
            os.utime(self.blobs.path(sha256), (then, then))

    def collect(self, walk: bool = False) -> None:
        collect(self.jobs.engine, self.settings, walk, OLD)

    def has(self, sha256: str) -> tuple[bool, bool, bool]:
        """Its file, its row, its owner."""
        with self.jobs.session() as session:
            row = session.scalar(text("SELECT count(*) FROM blobs WHERE sha256 = :name"), {"name": sha256})
            owner = session.scalar(text("SELECT count(*) FROM blob_owners WHERE sha256 = :name"), {"name": sha256})
        return self.blobs.path(sha256).exists(), bool(row), bool(owner)


@pytest.fixture
def shelf(jobs: Jobs, tmp_path: Path) -> Shelf:
    return Shelf(jobs, tmp_path)


def test_what_nothing_refers_to_goes_after_a_while(shelf: Shelf) -> None:
    name = os.urandom(8)
    young, old, asked_for = (shelf.put(name + what) for what in (b"young", b"old", b"asked for"))
    shelf.age(old, asked_for)
    with shelf.jobs.session() as session:
        owners.require_owned(session, shelf.jobs.tenant_id, asked_for)
    shelf.collect()
    assert shelf.has(old) == (False, False, False)
    assert shelf.has(young) == shelf.has(asked_for) == (True, True, True)


def test_what_something_refers_to_stays(shelf: Shelf) -> None:
    jobs = shelf.jobs
    of_dataset, of_checkpoint, source, draws = hashes = [shelf.put(os.urandom(8)) for _ in range(4)]
    with jobs.session() as session:
        series = jobs.series(session, 0)
        session.get_one(Dataset, series.dataset_id).blob = of_dataset
        ids = {"id": new_id("ckp"), "tenant_id": jobs.tenant_id, "series_id": series.id}
        session.add(Checkpoint(**ids, step=0, blob=of_checkpoint, source=source))
        series_id = series.id
    job, shards = jobs.create(num_checkpoints=1)
    lease = jobs.claimed(shards[0])
    with jobs.session() as session:
        leases.finish(session, lease, [result(lease.checkpoint_ids[0]) | {"draws": draws}], blobs={draws: 8})
    shelf.age(*hashes)
    shelf.collect(walk=True)
    assert [shelf.has(sha256) for sha256 in hashes] == [(True, True, True)] * 4
    with jobs.session() as session:
        session.delete(session.get_one(Series, series_id))
        session.execute(
            text("UPDATE results SET created_at = now() - '2 days'::interval WHERE job_id = :job"), {"job": job}
        )
    shelf.collect()
    assert shelf.has(of_dataset) == (True, True, True)
    assert shelf.has(of_checkpoint) == shelf.has(source) == shelf.has(draws) == (False, False, False)
    assert jobs.count(Result, job) == 1


def test_a_blob_of_two_tenants_stays_until_both_let_go(shelf: Shelf, other: Shelf) -> None:
    sha256 = shelf.put(os.urandom(8))
    with other.jobs.session() as session:
        owners.add_owner(session, other.jobs.tenant_id, sha256, 8)
    shelf.age(sha256)
    with other.jobs.session() as session:
        assert owners.add_owner(session, other.jobs.tenant_id, sha256, 8) is False  # a sign
    shelf.collect()
    assert shelf.has(sha256) == (True, True, True)
    with shelf.jobs.session() as session:
        assert owners.owned(session, shelf.jobs.tenant_id, [sha256]) == set()
    shelf.age(sha256)
    shelf.collect()
    assert shelf.has(sha256) == (False, False, False)


def test_who_brings_a_blob_again_just_then_keeps_it(shelf: Shelf) -> None:
    content = os.urandom(8)
    sha256 = shelf.put(content)
    shelf.age(sha256)
    shelf.blobs.put(content)  # its file is new, and its row will be
    shelf.collect()
    assert shelf.has(sha256) == (True, True, False)
    shelf.put(content)
    shelf.collect()
    assert shelf.has(sha256) == (True, True, True)


def test_files_without_a_row_go_when_all_are_looked_at(shelf: Shelf) -> None:
    orphan, known, fresh = shelf.blobs.put(os.urandom(8))[0], shelf.put(os.urandom(8)), shelf.blobs.put(b"fresh")[0]
    shelf.age(orphan)
    then = time.time() - 2 * OLD
    os.utime(shelf.blobs.path(known), (then, then))
    shelf.collect()
    assert shelf.blobs.path(orphan).exists()
    shelf.collect(walk=True)
    assert [shelf.blobs.path(sha256).exists() for sha256 in (orphan, known, fresh)] == [False, True, True]


def test_uploads_that_took_too_long_are_given_up(shelf: Shelf) -> None:
    with shelf.jobs.session() as session:
        late, _ = uploads.begin(session, shelf.jobs.tenant_id, "1" * 64, 5, seconds=0)
        early, _ = uploads.begin(session, shelf.jobs.tenant_id, "2" * 64, 5, seconds=60)
        paths = [shelf.blobs.part(upload.id) for upload in (late, early)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"abc")
    shelf.collect()
    assert [path.exists() for path in paths] == [False, True]
    with shelf.jobs.session() as session:
        assert uploads.begin(session, shelf.jobs.tenant_id, "1" * 64, 5, 60)[1] is True
        assert uploads.begin(session, shelf.jobs.tenant_id, "2" * 64, 5, 60)[1] is False


@pytest.fixture
def other(engine: Engine, tmp_path: Path) -> Shelf:
    """Another tenant's."""
    with Session(engine) as session, session.begin():
        return Shelf(Jobs(engine, tenants.ensure_tenant(session, new_id("ten")).id), tmp_path)
