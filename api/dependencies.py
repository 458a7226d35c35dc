"""What endpoints ask for: the process's database and blobs, and the caller."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.callers import Callers
from api.kept import Kept
from api.problems import ForbiddenError
from api.rate import Rates
from api.streams import Announcements
from store.blobs import BlobStore
from store.errors import UnauthorizedError
from store.keys import Scope, find_key
from store.settings import StoreSettings
from store.tables import ApiKey


@dataclass(frozen=True)
class State:
    """What the endpoints of one process share."""

    settings: StoreSettings
    engine: Engine
    reads: Engine
    read_threads: CapacityLimiter
    drawing_threads: CapacityLimiter
    file_threads: CapacityLimiter
    blobs: BlobStore
    announcements: Announcements
    rates: Rates
    callers: Callers
    kept: Kept

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session, committed at the end, rolled back on an error.

        To be opened and closed in one thread, by an endpoint's body and not by a dependency: who has a connection and
        waits for a thread of the pool would wait for those who have a thread and wait for a connection.
        """
        with Session(self.engine, expire_on_commit=False) as session:
            yield session
            session.commit()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads: each statement sees what is committed by then, as in any of ours."""
        with Session(self.reads, expire_on_commit=False) as session:
            yield session


async def _state(request: Request) -> State:
    return request.app.state.shared


Shared = Annotated[State, Depends(_state)]

_bearer = HTTPBearer(auto_error=False, bearerFormat="lh_…", description="An API key.")


def _require(scope: Scope) -> Callable[..., Awaitable[ApiKey]]:
    async def caller(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)], shared: Shared) -> ApiKey:
        if given is None:
            raise UnauthorizedError("there is no API key", "send the header 'Authorization: Bearer lh_…'")
        key = shared.callers.get(given.credentials) or await run_sync(
            _find, shared, given.credentials, limiter=shared.read_threads
        )
        shared.rates.take(key.id)
        if scope not in key.scopes:
            raise ForbiddenError(scope)
        return key

    return caller


def _find(shared: State, text: str) -> ApiKey:
    with shared.reading() as session:
        key = find_key(session, text)
    shared.callers.put(text, key)
    return key


Reader = Annotated[ApiKey, Depends(_require("read"))]
Writer = Annotated[ApiKey, Depends(_require("write"))]
Admin = Annotated[ApiKey, Depends(_require("admin"))]
