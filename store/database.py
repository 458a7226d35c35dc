"""The engine: psycopg 3, one pool a process."""

from sqlalchemy import Engine, create_engine


def connect(url: str, pool_size: int = 10) -> Engine:
    """An engine for `postgresql://...`; idle connections are checked before use, lock waits end after 10 s."""
    _, rest = url.split("://", 1)
    return create_engine(
        f"postgresql+psycopg://{rest}",
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        connect_args={
            "connect_timeout": 10,
            "options": "-c lock_timeout=10s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s",
        },
    )
