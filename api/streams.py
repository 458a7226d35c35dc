"""Server-sent events of a job (WHATWG HTML, 9.2), from the database: who comes back with Last-Event-ID misses nothing.

PostgreSQL's NOTIFY only wakes; what is sent was read from the table. One connection of each process listens for all of
its streams, and where that is cut they look by themselves now and then.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
from fastapi.concurrency import run_in_threadpool
from psycopg import sql

from store.jobs import CHANNEL
from store.logs import Outage

LOOK_SECONDS = 2.0
"""A stream looks at least this often, and says that it lives."""

SHARED_SECONDS = 0.5
AGAIN_SECONDS = 1.0

Message = tuple[int | None, str, str]
"""Id, if it is to be resumed from; kind; JSON."""

Look = Callable[[int], tuple[list[Message], bool]]
"""Reads the messages after an event, and whether they were the last ones."""


class Announcements:
    """Wakes the streams of a job when something happens to it."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._news = 0
        """How many announcements there were."""
        self._looks: dict[tuple[str, int, int], asyncio.Task[tuple[list[Message], bool]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage("database")  # meanwhile streams are slower
        self.ended = asyncio.Event()
        """The process is to end, and so are its streams."""

    @contextlib.contextmanager
    def of(self, job_id: str) -> Iterator[asyncio.Event]:
        """Set whenever something may have happened."""
        self._task = self._task or asyncio.create_task(self._listen())
        wake = asyncio.Event()
        self._waiting[job_id].add(wake)
        try:
            yield wake
        finally:
            self._waiting[job_id].discard(wake)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def look(self, job_id: str, after: int, look: Look) -> tuple[list[Message], bool]:
        """What `look` finds. Streams of one job that are as far as one another share a look for a moment, unless there
        are news since it began.
        """
        key = job_id, after, self._news
        task = self._looks.get(key)
        if task is None:
            task = self._looks[key] = asyncio.create_task(run_in_threadpool(look, after))
            task.add_done_callback(
                lambda _: asyncio.get_running_loop().call_later(SHARED_SECONDS, self._looks.pop, key)
            )
        return await asyncio.shield(task)

    async def end(self) -> None:
        """Let all streams end."""
        self.ended.set()
        self._wake_all()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    self._outage.back()
                    self._wake_all()  # something may have happened meanwhile
                    async for announced in connection.notifies():
                        self._news += 1
                        for wake in self._waiting.get(announced.payload, ()):
                            wake.set()
            except psycopg.Error as error:
                self._outage.away(error)
            await asyncio.sleep(AGAIN_SECONDS)

    def _wake_all(self) -> None:
        self._news += 1
        for wakes in self._waiting.values():
            for wake in wakes:
                wake.set()


async def stream(announcements: Announcements, job_id: str, after: int, look: Look) -> AsyncIterator[str]:
    """The text of a stream."""
    yield f"retry: {round(1000 * AGAIN_SECONDS)}\n\n"
    with announcements.of(job_id) as wake:
        while not announcements.ended.is_set():
            wake.clear()
            messages, over = await announcements.look(job_id, after, look)
            for number, kind, data in messages:
                after = after if number is None else number
                resume = "" if number is None else f"id: {number}\n"
                yield f"{resume}event: {kind}\ndata: {data}\n\n"
            if over:
                return
            if not messages:
                yield ": nothing new\n\n"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), LOOK_SECONDS)
