"""Ends a worker that hears nothing although it should, for whoever started it to start it again: a connection to the
broker can be dead without either end knowing.
"""

import logging
import os
import threading
from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store import leases
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

LOOKS = 4
"""Within the time that a worker may be idle while hints are sent."""

DEAF = 75
"""The exit status (EX_TEMPFAIL)."""


def watch(supervisor: Supervisor, engine: Engine, queues: Sequence[str], idle_seconds: float) -> None:
    """Start to watch."""
    threading.Thread(target=_watch, args=(supervisor, engine, queues, idle_seconds), daemon=True).start()


def _watch(supervisor: Supervisor, engine: Engine, queues: Sequence[str], idle_seconds: float) -> None:
    while not supervisor.stopping.wait(idle_seconds / LOOKS):
        if supervisor.idle_for() < idle_seconds:
            continue
        try:
            with Session(engine) as session:
                unheard = leases.unheard(session, queues, idle_seconds)
        except OperationalError as error:
            log.warning("the database is away: %s", error)
            continue
        if unheard:
            log.critical("%d shards wait, hints were sent, and none was heard for %g s", unheard, idle_seconds)
            os._exit(DEAF)
