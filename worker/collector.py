"""Makes room: a thread of the sweeper's that deletes what nothing refers to any more (store.collection)."""

import threading

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import sessionmaker

from store import collection
from store.blobs import BlobStore
from store.owners import GRACE_HOURS
from store.settings import StoreSettings

log = structlog.get_logger()

GRACE_SECONDS = 3600.0 * GRACE_HOURS
ROUNDS_PER_WALK = 24
"""Through all files, for those that no row knows."""


def start(engine: Engine, settings: StoreSettings, stop: threading.Event) -> None:
    """Collect now and then, until told to stop."""
    threading.Thread(target=_collect, args=(engine, settings, stop), daemon=True).start()


def _collect(engine: Engine, settings: StoreSettings, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(settings.collect_seconds):
        try:
            collect(engine, settings, walk=number % ROUNDS_PER_WALK == 0)
            number += 1
        except (OperationalError, OSError) as error:
            log.warning("not_collected", reason=str(error))


def collect(engine: Engine, settings: StoreSettings, walk: bool, grace_seconds: float = GRACE_SECONDS) -> None:
    """One round; with all files looked at or only those that the database names."""
    blobs, transaction = BlobStore(settings.blob_dir), sessionmaker(engine).begin
    with transaction() as session:
        expired = collection.expire_uploads(session, blobs)
    if settings.draws_days is not None:
        with transaction() as session:
            collection.strip_draws(session, 24 * 3600.0 * settings.draws_days)
    with transaction() as session:
        collection.disown(session, grace_seconds)
    deleted = 0
    while found := collection.delete_unowned(engine, blobs, grace_seconds):
        deleted += found
    orphans = collection.delete_orphans(engine, blobs, grace_seconds) if walk else 0
    left = blobs.remove_abandoned(grace_seconds)
    if expired or deleted or orphans or left:
        log.info("collected", uploads=expired, blobs=deleted, orphans=orphans, half_done=left)
