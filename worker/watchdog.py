"""Ends a worker that hears nothing although it should, for whoever started it to start it again: a connection to the
broker can be dead without either end knowing.
"""

import os
import threading
from collections.abc import Sequence

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store import leases
from store.logs import Outage
from worker.supervisor import Supervisor

log = structlog.get_logger()

LOOKS = 4
"""Within the time that a worker may be idle while hints are sent."""

DEAF = 75
"""The exit status (EX_TEMPFAIL)."""


def watch(supervisor: Supervisor, engine: Engine, queues: Sequence[str], idle_seconds: float) -> None:
    """Start to watch."""
    threading.Thread(target=_watch, args=(supervisor, engine, queues, idle_seconds), daemon=True).start()


def _watch(supervisor: Supervisor, engine: Engine, queues: Sequence[str], idle_seconds: float) -> None:
    database = Outage("database")
    while not supervisor.stopping.wait(idle_seconds / LOOKS):
        if supervisor.idle_for() < idle_seconds:
            continue
        try:
            with Session(engine) as session:
                unheard = leases.unheard(session, queues, idle_seconds)
        except OperationalError as error:
            database.away(error)
            continue
        database.back()
        if unheard:
            log.critical("deaf", reason="shards wait, hints were sent, and none was heard", shards=unheard)
            os._exit(DEAF)
