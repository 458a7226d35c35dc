"""The database's shape, brought up to date by Alembic. The revisions travel with the package `migrations`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

import migrations

# Any number that nobody else's advisory lock has: two migrators at once take turns.
_LOCK = 0x6C616D626461


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database up to a revision, in one transaction."""
    with engine.begin() as connection:
        upgrade_in(connection, revision)


def upgrade_in(connection: Connection, revision: str = "head") -> None:
    """The same in the transaction of a connection."""
    _prepare(connection)
    command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the database back to a revision ('base': to nothing), in one transaction."""
    with engine.begin() as connection:
        _prepare(connection)
        command.downgrade(_config(connection), revision)


def current_revision(connection: Connection) -> str | None:
    """The revision that the database has; None before the first."""
    return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str | None:
    """The newest revision that this version of the code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def knows(revision: str) -> bool:
    """Whether this version of the code has such a revision."""
    return any(known.revision == revision for known in ScriptDirectory.from_config(_config()).walk_revisions())


def _prepare(connection: Connection) -> None:
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(next(iter(migrations.__path__)))))
    config.set_main_option("path_separator", "os")
    return config
