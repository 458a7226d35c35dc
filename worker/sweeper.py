"""`python -m worker.sweeper`: takes back expired leases, gives jobs that follow a series its new checkpoints, sends
hints for shards that are due, and now and then deletes what nothing refers to. One is enough; more do no harm.
"""

import argparse
import signal
import threading
from contextlib import AbstractContextManager

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from store import following, idempotency, leases
from store.clock import Clock, straighten
from store.database import SWEEPER, connect
from store.logs import Outage, write_json
from store.settings import StoreSettings
from store.tables import QUEUES
from worker import collector, hints

log = structlog.get_logger()

database, broker = Outage("database"), Outage("broker")


class Sweeper:
    """Rounds: reap, tidy, dispatch, follow. Every step is its own transaction, and hints are sent after the commit."""

    def __init__(self, engine: Engine, settings: StoreSettings) -> None:
        self._engine, self._settings = engine, settings
        self._clock = Clock()

    def round(self) -> None:
        """One of them. What failed is tried again in the next."""
        with self._transaction() as session:
            self._reap(session)
        with self._transaction() as session:
            idempotency.forget_old(session)
        for queue in QUEUES:
            self._dispatch(queue)
        self._follow()

    def _transaction(self) -> AbstractContextManager[Session]:
        return sessionmaker(self._engine).begin()

    def _reap(self, session: Session) -> None:
        seconds = self._settings.lease_seconds
        straighten(session, seconds)
        if self._clock.is_steady(session, seconds):
            for shard_id in leases.reap(session, seconds):
                log.warning("lease_expired", shard=shard_id)

    def _follow(self) -> None:
        with self._transaction() as session:
            behind = following.behind(session)
        for job in behind:
            try:
                with self._transaction() as session:
                    taken = following.take_in(session, job, self._settings)
            except OperationalError:
                raise
            except Exception:  # of this job alone, settings of an older version say
                log.exception("job_not_extended", job=job)
            else:
                if taken:  # none, while the tenant may queue no more
                    log.info("job_extended", job=job, checkpoints=taken)

    def _dispatch(self, queue: str) -> None:
        settings, lying = self._settings, hints.count(queue)
        with self._transaction() as session:
            due = leases.dispatch(session, queue, settings.dispatch_again_seconds, settings.dispatch_window, lying)
        sent = 0
        try:
            for hint in due:
                hints.send(hint)
                sent += 1
        finally:
            if sent < len(due):
                with self._transaction() as session:
                    leases.undispatch(session, [hint.shard_id for hint in due[sent:]])


def main() -> None:
    """Sweep until told to stop."""
    argparse.ArgumentParser(prog="python -m worker.sweeper", description=__doc__).parse_args()
    write_json()
    settings = StoreSettings.model_validate({})
    engine = connect(settings.database_url, pool_size=3, seconds=settings.database_seconds, name=SWEEPER)
    sweeper, stop = Sweeper(engine, settings), threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    collector.start(engine, settings, stop)
    while not stop.wait(settings.sweep_seconds):
        try:
            sweeper.round()
            database.back()
            broker.back()
        except OperationalError as error:
            database.away(error)
        except hints.ERRORS as error:
            database.back()
            broker.away(error)


if __name__ == "__main__":
    main()
