"""Nothing waits for the database for ever."""

import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from store.database import GRACE_SECONDS, connect
from tests.chaos.proxy import database_through, in_front_of_database


def test_an_answer_that_never_comes_is_given_up_and_the_next_connection_works(database_url: str) -> None:
    with in_front_of_database(database_url) as proxy:
        engine = connect(database_through(proxy, database_url), seconds=0.5)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
            start = time.monotonic()
            with proxy.being("half_open"), pytest.raises(OperationalError, match=r"did not answer within 2\.5 s"):
                connection.scalar(text("SELECT 2"))
            assert 0.5 + GRACE_SECONDS <= time.monotonic() - start < 0.5 + GRACE_SECONDS + 3
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 3")) == 3
        engine.dispose()


def test_a_statement_that_takes_too_long_is_ended_by_the_server(database_url: str) -> None:
    engine = connect(database_url, seconds=0.3)
    with engine.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
        connection.execute(text("SELECT pg_sleep(5)"))
    engine.dispose()


def test_a_connection_that_was_reset_while_idle_is_replaced(database_url: str) -> None:
    with in_front_of_database(database_url) as proxy:
        engine = connect(database_through(proxy, database_url), seconds=5)
        for number in (1, 2):
            with engine.connect() as connection:
                assert connection.scalar(text(f"SELECT {number}")) == number
            proxy.reset()
        engine.dispose()
