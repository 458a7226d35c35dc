"""Where Alembic finds the database: the connection that `store.schema` gives, else `LAMBDAHAT_DATABASE_URL`."""

import os

from alembic import context
from sqlalchemy import Connection

from store.database import connect
from store.tables import Base


def run(connection: Connection) -> None:
    """Run the revisions over a connection, in its transaction."""
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Alembic's entry point."""
    given: Connection | None = context.config.attributes.get("connection")
    if given is not None:
        return run(given)
    engine = connect(os.environ["LAMBDAHAT_DATABASE_URL"])
    try:
        with engine.begin() as connection:
            run(connection)
    finally:
        engine.dispose()


main()
