"""The engine: psycopg 3, one pool a process. Nothing waits for the database for ever, be it that its machine is gone,
that something on the way swallows what is sent, or that a statement takes too long.
"""

import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

LOCK_SECONDS = 10
SWEEPER = "lambdahat sweeper"
"""Its name in the database."""

AWAY = (OperationalError, PoolTimeoutError)
"""What a statement raises while the database can't be reached; also that all connections wait for it."""

GRACE_SECONDS = 2.0
"""For the server to say itself that a statement took too long."""


class _Connection(psycopg.Connection[Any]):
    """A connection that gives up when no answer comes."""

    answer_seconds: float

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._until_too_late(gen), *args, **kwargs)

    def _until_too_late(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """psycopg tells its generators several times a second that nothing has come, by a 0."""
        deadline = time.monotonic() + self.answer_seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()  # closed, so that nobody is given it again
                    raise psycopg.OperationalError(f"the database did not answer within {self.answer_seconds:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def connect(
    url: str,
    pool_size: int = 10,
    seconds: float | None = None,
    name: str = "lambdahat",
    autocommit: bool = False,
) -> Engine:
    """An engine for `postgresql://...`; idle connections are checked before use, lock waits end after 10 s, and
    statements after so many seconds, if a number is given. name: what the database calls who connects; autocommit, for
    reads: every statement by itself, which saves the journeys that begin and end a transaction, and planned for what
    it asks.
    """
    address = url.partition("://")[2]
    # Reads have filters that anything from none to all rows passes: a plan for every one of them would fit none.
    plans = {"plan_cache_mode": "force_custom_plan"} if autocommit else {}
    settings = {"lock_timeout": f"{LOCK_SECONDS}s", **plans}
    if seconds is not None:
        settings |= {"statement_timeout": f"{seconds:g}s", "idle_in_transaction_session_timeout": f"{seconds:g}s"}
    arguments: dict[str, Any] = {
        "application_name": name,
        "connect_timeout": 10,
        # An end of the other machine is noticed even where nothing is being sent.
        **{"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000},
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }
    engine = create_engine(
        f"postgresql+psycopg://{address}",
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        connect_args=arguments,
        **({"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True} if autocommit else {}),
    )

    if seconds is not None:
        patience = seconds + GRACE_SECONDS

        @event.listens_for(engine, "do_connect")
        def _(_dialect: object, _record: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Connection:
            connection = _Connection.connect(*args, **kwargs)
            connection.answer_seconds = patience
            return connection

    return engine
