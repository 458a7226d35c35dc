"""A backup: every table as it was at one moment, and the blobs that they speak of, in one tar file.

    header.json       format, revision of the schema, time, sizes and hashes of the tables, how many blobs
    blobs/SHA-256     as they are in the folder of blobs; their names prove them
    tables/NAME       PostgreSQL's COPY, which is the same in all its versions
    end.json          what was missing; the hashes of header.json and of itself: a file without it is not whole

Tables are read in one transaction, blobs after it: a blob never changes, and none that a table speaks of goes away
without that table changing. Restored into the revision that the backup was made at, and then migrated.
"""

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast

import psycopg
from psycopg import sql
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, Engine, MetaData, Table, inspect, text

from llc.errors import InputError
from store import schema
from store.archive import CHUNK, Hashed, add, add_note, chunks, damaged, members, read_note
from store.blobs import BlobStore, sync_folder
from store.errors import ConflictError

FORMAT = 1
VERSIONS = "alembic_version"

Tell = Callable[[int, int], None]
"""Is told how many bytes are done, of how many."""


class Member(BaseModel):
    """A table's file."""

    bytes: int
    sha256: str


class Header(BaseModel):
    """What the backup is of. blobs: how many there are in it; with `missing` of the end, all that the tables name."""

    format: int
    lambdahat: str
    revision: str
    created_at: str
    tables: dict[str, Member]
    sequences: dict[str, int]
    blobs: int
    blob_bytes: int


class End(BaseModel):
    """missing: blobs whose file was gone, or not what its name says."""

    header_sha256: str
    missing: list[str]


def write(engine: Engine, blobs: BlobStore | None, target: Path, tell: Tell) -> End:
    """Write a backup; nothing of that name is there before it is whole. blobs: None for the tables alone.

    Raises: ConflictError where there is something of that name; InputError for a database without tables.
    """
    if target.exists():
        raise ConflictError("file_exists", f"{target} is there already", "choose another name")
    part = target.with_name(f".{target.name}.part")
    with ExitStack() as ending:
        ending.callback(part.unlink, missing_ok=True)
        header, tables, wanted = _read_tables(engine, ending, target.parent, with_blobs=blobs is not None)
        file = ending.enter_context(os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "wb"))
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            said = add_note(tar, "header.json", header)
            total = header.blob_bytes + sum(member.bytes for member in header.tables.values())
            step = _steps(total, tell)
            missing = [sha256 for sha256 in wanted if blobs and not _add_blob(tar, sha256, blobs.path(sha256), step)]
            for name, spooled in tables.items():
                add(tar, f"tables/{name}", header.tables[name].bytes, Hashed(spooled, step))
            end = End(header_sha256=said, missing=missing)
            add_note(tar, "end.json", end)
        file.flush()
        os.fsync(file.fileno())
        part.rename(target)
        sync_folder(target.parent)
        return end


def read(engine: Engine, blobs: BlobStore | None, source: Path, tell: Tell) -> End:
    """Restore a backup into an empty database, and migrate it; or, of whatever goes wrong, leave nothing of it.

    blobs: None for a backup of the tables alone. Raises: InputError `damaged_backup`, `newer_backup`; ConflictError for
    a database with tables.
    """
    if blobs:
        blobs.root.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file, ExitStack() as undo:
        try:
            end = _restore(engine, blobs, file, undo, tell)
        except (tarfile.TarError, EOFError, ValidationError, UnicodeDecodeError, psycopg.DataError) as error:
            raise damaged(str(error).partition("\n")[0]) from error
        undo.pop_all()
        return end


def _restore(engine: Engine, blobs: BlobStore | None, file: IO[bytes], undo: ExitStack, tell: Tell) -> End:
    with tarfile.open(fileobj=file, mode="r|") as tar, ExitStack() as spools:
        contents = members(tar)
        said, header = read_note(tar, next(contents, None), "header.json", Header)
        _check(engine, header, blobs)
        total = header.blob_bytes + sum(member.bytes for member in header.tables.values())
        step = _steps(total, tell)
        wrong, tables, count = [], dict[str, IO[bytes]](), 0
        end: End | None = None
        for member in contents:
            folder, _, name = member.name.partition("/")
            if folder == "blobs" and blobs is not None:
                count += 1
                if not _keep_blob(tar, member, name, blobs, undo, step):
                    wrong.append(name)
            elif folder == "tables" and name in header.tables:
                tables[name] = spools.enter_context(tempfile.TemporaryFile(dir=blobs.root if blobs else None))
                _spool(tar, member, tables[name], header.tables[name], step)
            elif member.name == "end.json":
                _, end = read_note(tar, member, "end.json", End)
            else:
                raise damaged(f"'{member.name}' does not belong there")
        if end is None or end.header_sha256 != said:
            raise damaged("its end is missing")
        if tables.keys() != header.tables.keys():
            raise damaged(f"tables are missing: {', '.join(sorted(header.tables.keys() - tables.keys()))}")
        if count != header.blobs - len(set(end.missing) - set(wrong)) or not set(wrong) <= set(end.missing):
            raise damaged(f"{count} of {header.blobs} blobs are there, and {len(wrong)} are not what their names say")
        with engine.begin() as connection:
            _write_tables(connection, header, tables, end.missing)
    return end


# The tables -----------------------------------------------------------------------------------------------------------


def _nameless(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)


def _read_tables(
    engine: Engine, ending: ExitStack, folder: Path, *, with_blobs: bool
) -> tuple[Header, dict[str, IO[bytes]], list[str]]:
    """All tables at one moment, in files that have no name; and the blobs of that moment."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        revision = schema.current_revision(connection)
        if revision is None:
            raise InputError("no_tables", "the database has no tables", "there is nothing to back up")
        about, files = dict[str, Member](), dict[str, IO[bytes]]()
        for table in _tables(connection):
            file = ending.enter_context(_nameless(folder))
            hashed = Hashed(file)
            with _cursor(connection) as cursor, cursor.copy(_copy(table, "TO STDOUT")) as rows:
                for row in rows:
                    hashed.write(row)
            about[table.name] = Member(bytes=file.tell(), sha256=hashed.hexdigest())
            files[table.name] = file
            file.seek(0)
        wanted = connection.execute(text("SELECT sha256, size FROM blobs ORDER BY sha256")).all() if with_blobs else []
        header = Header(
            format=FORMAT,
            lambdahat=version("lambdahat"),
            revision=revision,
            created_at=connection.execute(text("SELECT now()")).scalar_one().isoformat(),
            tables=about,
            sequences={
                name: connection.execute(text(f"SELECT last_value FROM {sequence}")).scalar_one()
                for name, sequence in _sequences(connection)
            },
            blobs=len(wanted),
            blob_bytes=sum(row.size for row in wanted),
        )
    return header, files, [row.sha256 for row in wanted]


def _write_tables(connection: Connection, header: Header, tables: dict[str, IO[bytes]], missing: list[str]) -> None:
    """Make the tables of the backup's revision, fill them, and bring them up to date."""
    schema.upgrade_in(connection, header.revision)
    for table in _tables(connection):
        if table.name not in tables:
            raise damaged(f"table '{table.name}' is missing")
        with _cursor(connection) as cursor, cursor.copy(_copy(table, "FROM STDIN")) as rows:
            while chunk := tables[table.name].read(CHUNK):
                rows.write(chunk)
    for name, sequence in _sequences(connection):
        connection.execute(text("SELECT setval(:name, :value)"), {"name": sequence, "value": header.sequences[name]})
    # Whoever has such a blob is asked for it when it is wanted next.
    connection.execute(text("DELETE FROM blob_owners WHERE sha256 = ANY(:missing)"), {"missing": missing})
    schema.upgrade_in(connection)


def _tables(connection: Connection) -> Iterator[Table]:
    """Of the revision that the database has, those first that others refer to."""
    found = MetaData()
    found.reflect(connection)
    return (table for table in found.sorted_tables if table.name != VERSIONS)


def _sequences(connection: Connection) -> Iterator[tuple[str, str]]:
    """'table.column' and the sequence behind it, quoted."""
    for table in _tables(connection):
        for column in table.columns:
            asked = {"table": f'"{table.name}"', "column": column.name}
            found = connection.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), asked).scalar_one()
            if found is not None:
                yield f"{table.name}.{column.name}", found


def _copy(table: Table, way: str) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns if column.computed is None)
    return sql.SQL("COPY {} ({}) " + cast(Any, way)).format(sql.Identifier(table.name), columns)


@contextmanager
def _cursor(connection: Connection) -> Iterator[psycopg.Cursor]:
    """In the transaction of a connection of SQLAlchemy's, with values written in one way everywhere."""
    driver = cast(psycopg.Connection, connection.connection.driver_connection)
    with driver.cursor() as cursor:
        for setting in ("DateStyle = 'ISO'", "TimeZone = 'UTC'", "extra_float_digits = 1", "client_encoding = 'UTF8'"):
            cursor.execute(f"SET LOCAL {setting}".encode())
        yield cursor


def _check(engine: Engine, header: Header, blobs: BlobStore | None) -> None:
    """Whether this backup can be restored here."""
    if header.format != FORMAT or not schema.knows(header.revision):
        raise InputError(
            "newer_backup",
            f"the backup was made by lambdahat {header.lambdahat}, whose tables (revision {header.revision}) this "
            f"version, {version('lambdahat')}, does not know",
            f"pip install 'lambdahat[server]>={header.lambdahat}'",
        )
    if blobs is None and header.blobs:
        raise InputError("has_blobs", "the backup has blobs, and there is no folder for them", "set LAMBDAHAT_BLOB_DIR")
    with engine.connect() as connection:
        if inspect(connection).get_table_names():
            hint = "restore into an empty one, and before `python -m store.admin migrate`"
            raise ConflictError("not_empty", "the database has tables already", hint)


# The blobs and the file -----------------------------------------------------------------------------------------------


def _steps(total: int, tell: Tell) -> Callable[[int], None]:
    done = 0

    def step(size: int) -> None:
        nonlocal done
        done += size
        tell(done, total)

    return step


def _add_blob(tar: tarfile.TarFile, sha256: str, path: Path, step: Callable[[int], None]) -> bool:
    """Whether it was there, and what its name says."""
    try:
        with path.open("rb") as file:
            hashed = Hashed(file, step)
            add(tar, f"blobs/{sha256}", os.fstat(file.fileno()).st_size, hashed)
    except FileNotFoundError:
        return False
    return hashed.hexdigest() == sha256


def _keep_blob(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    name: str,
    blobs: BlobStore,
    undo: ExitStack,
    step: Callable[[int], None],
) -> bool:
    """Whether it is what its name says: if so it is kept, and goes again if the rest can't be restored."""
    if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise damaged(f"'{member.name}' does not belong there")
    path = blobs.path(name)
    if not path.exists():
        undo.callback(path.unlink, missing_ok=True)
    try:
        blobs.receive(_told(chunks(tar, member), step), name, member.size)
    except InputError as error:
        if error.code != "wrong_hash":
            raise
        return False
    return True


def _spool(
    tar: tarfile.TarFile, member: tarfile.TarInfo, file: IO[bytes], expected: Member, step: Callable[[int], None]
) -> None:
    hashed = Hashed(file, step)
    for chunk in chunks(tar, member):
        hashed.write(chunk)
    if hashed.hexdigest() != expected.sha256:
        raise damaged(f"'{member.name}' is not what was written")
    file.seek(0)


def _told(content: Iterable[bytes], step: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in content:
        step(len(chunk))
        yield chunk
