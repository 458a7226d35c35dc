"""Backups: what was there is there again, in any revision's tables; what is damaged is refused and leaves nothing."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.orm import Session

from llc.errors import InputError
from llc.settings import JobSettings
from store import backup, jobs, keys, leases, schema, tenants
from store.blobs import BlobStore
from store.database import connect
from store.ids import new_id
from store.tables import Base, Blob, BlobOwner, Checkpoint, Dataset, Model, Series, Shard
from tests.conftest import empty_database

AWKWARD = "tab\t newline\n backslash \\ \\N quote \" ' null \\x00 é 😀"


@contextmanager
def fresh(postgres_url: str) -> Iterator[Engine]:
    """An empty database."""
    with empty_database(postgres_url) as url:
        engine = connect(url)
        yield engine
        engine.dispose()


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    with fresh(postgres_url) as engine:
        yield engine


@pytest.fixture
def empty(postgres_url: str) -> Iterator[Engine]:
    with fresh(postgres_url) as engine:
        yield engine


@pytest.fixture
def filled(engine: Engine, tmp_path: Path) -> tuple[Engine, BlobStore, str]:
    """A job with a shard done and one queued, three blobs, and a key."""
    schema.upgrade(engine)
    blobs = BlobStore(tmp_path / "blobs")
    with Session(engine) as session, session.begin():
        tenant = tenants.ensure_tenant(session, AWKWARD)
        key = keys.create_key(session, tenant.id, "key")
        kept = [blobs.put(content) for content in (b"data", b"one" * 1_000_000, b"")]
        for sha256, size in kept:
            session.add(Blob(sha256=sha256, size=size))
        session.flush()
        for sha256, _ in kept:
            session.add(BlobOwner(tenant_id=tenant.id, sha256=sha256))
        own = {"tenant_id": tenant.id, "name": AWKWARD}
        model = Model(id=new_id("mdl"), spec={"family": "mlp", "widths": [3, 4, 2]}, num_parameters=26, **own)
        dataset = Dataset(id=new_id("dst"), blob=kept[0][0], arrays={"x": AWKWARD}, num_samples=8, **own)
        session.add_all([model, dataset])
        session.flush()
        series = Series(id=new_id("ser"), model_id=model.id, dataset_id=dataset.id, tags={"a": [0.1, 1e300]}, **own)
        session.add(series)
        session.flush()
        for step in range(2):
            checkpoint = Checkpoint(id=new_id("ckp"), step=step, blob=kept[1][0], tenant_id=tenant.id)
            checkpoint.series_id = series.id
            session.add(checkpoint)
        session.flush()
        settings = JobSettings.model_validate({"measures": {"loss": {}, "llc": None}, "checkpoints_per_shard": 1})
        job = jobs.create_job(session, tenant.id, series, settings)
        shard = session.query(Shard).filter_by(job_id=job.id, ordinal=0).one()
        lease = leases.claim(session, shard.id, "test", 30)
        assert lease is not None
        found = {"measure": "loss", "verdict": "ok", "reason": AWKWARD, "details": {}, "draws": None}
        quantities = {"loss": {"value": 0.1 + 0.2, "std_error": None}}
        row = found | {"checkpoint_id": lease.checkpoint_ids[0], "quantities": quantities}
        leases.finish(session, lease, results=[row])
    return engine, blobs, key


def rows(engine: Engine) -> dict[str, list[str]]:
    """Of every table, as text."""
    with engine.connect() as connection:
        return {
            name: sorted(connection.scalars(text(f"SELECT row_to_json(t)::text FROM {name} t")))
            for name in Base.metadata.tables
        }


def files(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


def test_everything_is_there_again(filled: tuple[Engine, BlobStore, str], empty: Engine, tmp_path: Path) -> None:
    engine, blobs, key = filled
    told: list[tuple[int, int]] = []
    end = backup.write(engine, blobs, tmp_path / "b.tar", lambda *at: told.append(at))
    assert end.missing == []
    assert told[-1][0] == told[-1][1] > 3_000_000
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    other = BlobStore(tmp_path / "others")
    backup.read(empty, other, tmp_path / "b.tar", lambda *at: told.append(at))
    assert told[-1][0] == told[-1][1]
    assert rows(empty) == rows(engine)
    assert files(other.root) == files(blobs.root)
    with Session(empty) as session, session.begin():
        assert keys.find_key(session, key).name == "key"
        due = session.query(Shard).filter_by(state="queued", ordinal=1).one()
        lease = leases.claim(session, due.id, "another", 30)  # writes events: their ids go on
        assert lease is not None
    with empty.connect() as connection:
        assert schema.current_revision(connection) == schema.head_revision()


def test_a_backup_of_older_tables_is_brought_up_to_date(engine: Engine, empty: Engine, tmp_path: Path) -> None:
    schema.upgrade(engine, "0003")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('ten_1', 'lab')"))
    backup.write(engine, None, tmp_path / "b.tar", lambda *_: None)
    backup.read(empty, None, tmp_path / "b.tar", lambda *_: None)
    with empty.connect() as connection:
        assert schema.current_revision(connection) == schema.head_revision()
        assert connection.execute(text("SELECT name FROM tenants")).scalars().all() == ["lab"]


def test_a_blob_that_is_gone_or_wrong_is_named_and_asked_for_again(
    filled: tuple[Engine, BlobStore, str], empty: Engine, tmp_path: Path
) -> None:
    engine, blobs, _ = filled
    with Session(engine) as session:
        data, one = (session.query(Blob).filter_by(size=size).one().sha256 for size in (4, 3_000_000))
    blobs.path(data).unlink()
    blobs.path(one).write_bytes(b"two" * 1_000_000)
    end = backup.write(engine, blobs, tmp_path / "b.tar", lambda *_: None)
    assert set(end.missing) == {data, one}
    other = BlobStore(tmp_path / "others")
    assert backup.read(empty, other, tmp_path / "b.tar", lambda *_: None) == end
    assert len(files(other.root)) == 1
    with Session(empty) as session:
        assert not {data, one} & set(session.scalars(text("SELECT sha256 FROM blob_owners")))


def test_whatever_is_damaged_is_refused_and_leaves_nothing(
    filled: tuple[Engine, BlobStore, str], empty: Engine, tmp_path: Path
) -> None:
    engine, blobs, _ = filled
    whole, bad, other = tmp_path / "b.tar", tmp_path / "bad.tar", BlobStore(tmp_path / "others")
    backup.write(engine, blobs, whole, lambda *_: None)
    content = whole.read_bytes()
    with tarfile.open(whole) as tar:
        members = [member for member in tar if member.size]
    # A byte of every file in it and of every header, and an end that comes too early.
    places = [place for m in members for place in (m.offset, m.offset_data, m.offset_data + m.size // 2)]
    wrong = [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in places]
    wrong += [content[: m.offset_data + m.size // 2] for m in members] + [b"", b"no tar at all"]
    for damaged in wrong:
        bad.write_bytes(damaged)
        with pytest.raises(InputError) as refused:
            backup.read(empty, other, bad, lambda *_: None)
        assert refused.value.code in ("damaged_backup", "no_backup")
        assert refused.value.hint
        assert files(other.root) == set()
        assert inspect(empty).get_table_names() == []


def test_nothing_is_overwritten(filled: tuple[Engine, BlobStore, str], tmp_path: Path) -> None:
    engine, blobs, _ = filled
    before = rows(engine)
    backup.write(engine, blobs, tmp_path / "b.tar", lambda *_: None)
    with pytest.raises(InputError, match="there already"):
        backup.write(engine, blobs, tmp_path / "b.tar", lambda *_: None)
    with pytest.raises(InputError, match="has tables already"):
        backup.read(engine, blobs, tmp_path / "b.tar", lambda *_: None)
    assert rows(engine) == before
    assert not list(tmp_path.glob(".*"))


def test_an_unknown_revision_says_which_version_to_install(
    engine: Engine, empty: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    monkeypatch.setattr("store.backup.version", lambda _: "9.9")
    backup.write(engine, None, tmp_path / "b.tar", lambda *_: None)
    monkeypatch.undo()
    with pytest.raises(InputError) as refused:
        backup.read(empty, None, tmp_path / "b.tar", lambda *_: None)
    assert refused.value.code == "newer_backup"
    assert ">=9.9" in refused.value.hint
