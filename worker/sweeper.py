"""`python -m worker.sweeper`: takes back expired leases and sends hints for shards that are due. One is enough; more
do no harm.
"""

import argparse
import signal
import threading

import structlog
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store import idempotency, leases
from store.database import SWEEPER, connect
from store.logs import Outage, write_json
from store.settings import StoreSettings

log = structlog.get_logger()

database, broker = Outage("database"), Outage("broker")


def sweep(engine: Engine, settings: StoreSettings) -> None:
    """One round: reap, tidy, dispatch. Every step is its own transaction, and hints are sent after the commit."""
    with Session(engine) as session, session.begin():
        for shard_id in leases.reap(session, settings.lease_seconds):
            log.warning("lease_expired", shard=shard_id)
    with Session(engine) as session, session.begin():
        idempotency.forget_old(session)
    with Session(engine) as session, session.begin():
        due = leases.dispatch(session, settings.dispatch_again_seconds, settings.dispatch_window)
    unsent = [hint.shard_id for hint in due if not _send(hint, settings.dispatch_again_seconds)]
    if unsent:
        with Session(engine) as session, session.begin():
            leases.undispatch(session, unsent)


def _send(hint: leases.Hint, expires: float) -> bool:
    """A hint, which is thrown away when the next one for the same shard is due."""
    from worker.app import RUN_SHARD, URGENT, USUAL, app

    priority = URGENT if hint.is_urgent else USUAL
    try:
        app.send_task(RUN_SHARD, [hint.shard_id], queue=hint.queue, expires=expires, priority=priority)
    except (BrokerError, OSError) as error:
        broker.away(error)
        return False
    broker.back()
    return True


def main() -> None:
    """Sweep until told to stop."""
    argparse.ArgumentParser(prog="python -m worker.sweeper", description=__doc__).parse_args()
    write_json()
    settings = StoreSettings.model_validate({})
    engine = connect(settings.database_url, pool_size=2, seconds=settings.database_seconds, name=SWEEPER)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    while not stop.wait(settings.sweep_seconds):
        try:
            sweep(engine, settings)
            database.back()
        except OperationalError as error:
            database.away(error)


if __name__ == "__main__":
    main()
