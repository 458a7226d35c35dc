"""The revisions make exactly what the tables say, there and back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, inspect, text

from store import schema
from store.database import connect
from store.tables import Base
from tests.conftest import empty_database

CATALOGUE = """
SELECT 'column' AS kind, table_name, column_name AS name,
       concat_ws(' ', data_type, is_nullable, column_default, identity_generation, generation_expression) AS definition
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""


FUNCTIONS = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"


@pytest.fixture
def empty(postgres_url: str) -> Iterator[Engine]:
    """An empty database."""
    with empty_database(postgres_url) as url:
        engine = connect(url)
        yield engine
        engine.dispose()


def catalogue(connection: Connection) -> set[tuple[str, ...]]:
    """Every column, constraint and index of the tables, as PostgreSQL defines them."""
    ours = set(Base.metadata.tables)
    return {tuple(row) for row in connection.execute(text(CATALOGUE)) if row.table_name in ours}


def test_alembic_finds_no_difference(empty: Engine) -> None:
    schema.upgrade(empty)
    with empty.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert schema.current_revision(connection) == schema.head_revision() is not None


def test_postgres_finds_no_difference(empty: Engine) -> None:
    """Alembic compares neither checks nor what a foreign key does on deletion."""
    schema.upgrade(empty)
    with empty.begin() as connection:
        made = catalogue(connection)
        functions = connection.execute(text(FUNCTIONS)).scalars().all()
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        for function in functions:  # of which columns are computed
            connection.exec_driver_sql(function)
        Base.metadata.create_all(connection)
        declared = catalogue(connection)
    assert made == declared
    assert {kind for kind, *_ in declared} == {"column", "constraint", "index"}


def test_there_and_back(empty: Engine) -> None:
    schema.upgrade(empty)
    schema.downgrade(empty, "base")
    assert inspect(empty).get_table_names() == ["alembic_version"]
    assert inspect(empty).get_view_names() == []
    with empty.connect() as connection:
        assert connection.execute(text(FUNCTIONS)).all() == []
    schema.upgrade(empty)
    schema.upgrade(empty)
    assert set(Base.metadata.tables) <= set(inspect(empty).get_table_names())


def test_two_migrators_take_turns(empty: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: schema.upgrade(empty), range(4)))
    with empty.connect() as connection:
        assert schema.current_revision(connection) == schema.head_revision()


def test_the_views_are_documented(empty: Engine) -> None:
    schema.upgrade(empty)
    with empty.connect() as connection:
        comments = connection.execute(
            text("SELECT relname, obj_description(oid) FROM pg_class WHERE relkind = 'v' AND relnamespace = :public"),
            {"public": connection.execute(text("SELECT 'public'::regnamespace::oid")).scalar_one()},
        )
        found = {row.relname: row.obj_description for row in comments}
    assert set(found) == {"llc_curve", "stage"}
    assert all(len(comment) > 80 for comment in found.values())
