"""What an installation needs of its servers and its disk: each thing looked at, said, and with what to do about it."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis import Redis, RedisError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from store.database import SWEEPER, connect
from store.schema import current_revision, head_revision
from store.settings import StoreSettings

OLDEST_POSTGRES = 15
CLOCK_SECONDS = 2.0
SILENT_SECONDS = 10.0
LITTLE_ROOM = 4 * 2**30
"""Bytes above the floor below which uploads are refused."""


@dataclass(frozen=True)
class Check:
    """One thing. hint: what to do, if it is not ok."""

    name: str
    state: Literal["ok", "warning", "broken"]
    detail: str
    hint: str = ""


def check_database(settings: StoreSettings, served: Mapping[str, set[str]] | None) -> Iterator[Check]:
    """What can be seen through the database. served: the queues of each worker; None if nobody could ask them."""
    hint = "is it running, and LAMBDAHAT_DATABASE_URL right?"
    engine = connect(settings.database_url, pool_size=1, seconds=settings.database_seconds, name="lambdahat doctor")
    try:
        with engine.connect() as connection:
            yield _version(connection)
            hint = "see the database's own log"
            migrations = _migrations(connection)
            yield migrations
            yield _clock(connection)
            if migrations.state == "ok":
                yield _sweeper(connection, settings.sweep_seconds)
                if served is not None:
                    yield from _queues(connection, served)
    except SQLAlchemyError as error:
        yield Check("database", "broken", first_line(error), hint)
    finally:
        engine.dispose()


def check_broker(url: str) -> Check:
    """Whether it answers."""
    try:
        with broker_client(url) as broker:
            server = broker.info("server")
    except (RedisError, OSError, ValueError) as error:
        return Check("broker", "broken", first_line(error), "is it running, and LAMBDAHAT_BROKER_URL right?")
    names = {"valkey": f"Valkey {server.get('valkey_version')}"}
    return Check("broker", "ok", names.get(server.get("server_name", ""), f"Redis {server.get('redis_version')}"))


def check_blobs(settings: StoreSettings) -> Check:
    """Whether the folder of blobs can be written, has room, and is on one disk."""
    root, floor = settings.blob_dir, settings.disk_floor_bytes
    try:
        try_to_write(root)
        free = shutil.disk_usage(root).free
        disks = {folder.stat().st_dev for folder in (root, *root.iterdir()) if folder.is_dir()}
    except OSError as error:
        return Check("blobs", "broken", first_line(error), "make LAMBDAHAT_BLOB_DIR a folder that this user may write")
    detail = f"{root}, {free / 2**30:.1f} GiB free"
    if len(disks) > 1:
        hint = "files are renamed from uploads/ into place: keep the whole folder on one disk"
        return Check("blobs", "broken", f"{detail}, on several disks", hint)
    if free < floor:
        return Check("blobs", "broken", f"{detail}: uploads are refused", "make room, or a larger disk")
    if free < floor + LITTLE_ROOM:
        return Check("blobs", "warning", detail, "make room, or a larger disk")
    return Check("blobs", "ok", detail)


def broker_client(url: str) -> Redis:
    """A client of the broker that waits two seconds at most."""
    # kombu's spelling of a socket, and redis-py's
    spelled = url.replace("redis+socket://", "unix://").split("?")[0]
    return Redis.from_url(spelled, socket_timeout=2, socket_connect_timeout=2)


def try_to_write(root: Path) -> None:
    """Raises: OSError where the folder of blobs can't be made or written."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root) as file:
        os.fsync(file.fileno())


def first_line(error: Exception) -> str:
    """Of what it says; the rest is SQLAlchemy's advertisement."""
    return str(error).partition("\n")[0] or type(error).__name__


def _version(connection: Connection) -> Check:
    number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    detail = f"PostgreSQL {connection.execute(text('SHOW server_version')).scalar_one()}"
    if number // 10_000 < OLDEST_POSTGRES:
        return Check("database", "broken", detail, f"upgrade it: {OLDEST_POSTGRES} is the oldest that serves")
    return Check("database", "ok", detail)


def _migrations(connection: Connection) -> Check:
    current, head = current_revision(connection), head_revision()
    if current != head:
        detail = f"the database is at revision {current}, this version at {head}"
        return Check("migrations", "broken", detail, "run python -m store.admin migrate")
    return Check("migrations", "ok", f"at revision {head}")


def _clock(connection: Connection) -> Check:
    before = time.time()
    theirs = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    ours = (before + time.time()) / 2
    detail = f"this machine's is {abs(theirs - ours):.1f} s {'behind' if ours < theirs else 'ahead of'} the database's"
    if abs(theirs - ours) > CLOCK_SECONDS:
        hint = "jobs go by the database's alone, but logs won't agree: set both by NTP"
        return Check("clock", "warning", detail, hint)
    return Check("clock", "ok", detail)


def _sweeper(connection: Connection, sweep_seconds: float) -> Check:
    silence = connection.execute(
        text(
            "SELECT extract(epoch FROM clock_timestamp() - max(state_change)) FROM pg_stat_activity"
            " WHERE application_name = :name AND datname = current_database()"
        ),
        {"name": SWEEPER},
    ).scalar_one()
    hint = "start one (python -m worker.sweeper): without it nothing new is begun"
    if silence is None:
        return Check("sweeper", "broken", "none is connected to the database", hint)
    detail = f"heard {float(silence):.1f} s ago"
    if silence > SILENT_SECONDS + 2 * sweep_seconds:
        return Check("sweeper", "broken", detail, f"it hangs: end it, and {hint}")
    return Check("sweeper", "ok", detail)


def _queues(connection: Connection, served: Mapping[str, set[str]]) -> Iterator[Check]:
    """Shards that wait for a kind of worker of which there is none."""
    waiting = connection.execute(
        text(
            "SELECT queue, count(*) AS shards FROM shards WHERE state = 'queued' AND run_at <= now()"
            " GROUP BY queue ORDER BY queue"
        )
    ).all()
    named = set[str]().union(*served.values())
    stranded = [row for row in waiting if row.queue not in named]
    for row in stranded:
        device = row.queue if row.queue != "auto" else "auto, cpu or gpu"
        yield Check(
            "queues",
            "broken",
            f"shards wait for '{row.queue}', which no worker serves: {row.shards}",
            f"start a worker (python -m worker --device {device}), or cancel the job and run it on another device",
        )
    if not stranded:
        yield Check("queues", "ok", f"shards that wait: {sum(row.shards for row in waiting)}")
