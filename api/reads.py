"""In which threads requests are answered: reads, which are many and short, are not to wait for what takes long."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response

from api.dependencies import State

THREADS = 12
"""For reads. More would take turns at Python's lock (and each a connection), and all of them be later."""


DRAWING_THREADS = 2
"""For pictures, which take half a second: they don't keep others waiting, and one is drawn at a time."""

FILE_THREADS = 8
"""For what reads a file to its end, for seconds or minutes: however many wait for that, they keep none of the threads
that all other requests need.
"""

Result = TypeVar("Result")


def reads_a_file(endpoint: Callable[..., Result]) -> Callable[..., Awaitable[Result]]:
    """An endpoint, with a `shared: Shared`, that takes long."""

    @functools.wraps(endpoint)
    async def answer(shared: State, **values: Any) -> Result:
        return await run_sync(functools.partial(endpoint, shared=shared, **values), limiter=shared.file_threads)

    return answer


class ReadRoute(APIRoute):
    """Of endpoints with a `shared: Shared`. Does what GET asks for in a thread that uploads and conversions can't take,
    and writes the answer there as well: FastAPI would have another thread check the model again, and then write it
    where all requests wait.
    """

    threads = "read_threads"
    """Whose turn it takes: a limiter of `State`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        is_read = set(options.get("methods") or ()) == {"GET"}
        super().__init__(path, _in_thread(endpoint, self.threads) if is_read else endpoint, **options)


class DrawRoute(ReadRoute):
    """Of endpoints that answer with pictures."""

    threads = "drawing_threads"


def _in_thread(endpoint: Callable[..., Any], threads: str) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    async def answer(shared: State, **values: Any) -> Response:
        call = functools.partial(endpoint, shared=shared, **values)
        return await run_sync(_answer, call, limiter=getattr(shared, threads))

    return answer


def _answer(call: Callable[[], BaseModel | Response]) -> Response:
    found = call()
    if isinstance(found, Response):
        return found
    return Response(found.model_dump_json(by_alias=True), media_type="application/json")
