"""Requests with retries, and answers turned into values or errors."""

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lambdahat.errors import ApiError, ServerUnreachableError

log = logging.getLogger(__name__)

BUSY = frozenset({429, 502, 503, 504})
REFUSED = 429
"""Too many requests: whatever it asks for, nothing was done."""
BUSY_CODES = frozenset({"request_in_flight"})
"""A request that was sent again while the first is still being answered."""

# The connection was never made, so the request was never read: it may be sent again whatever it asks for.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Message:
    """A server-sent event. id: to go on after it; None: it can't be resumed from."""

    id: int | None
    kind: str
    data: str


LONGEST_WAIT = 30.0
"""Seconds, whatever a server says."""

Content = Callable[[], Any]
"""Makes a request's body anew for every attempt."""


class Transport:
    """One server, one key.

    retries: attempts after the first, for requests that may be repeated without harm, with doubling pauses of
    0.2 to 5 seconds; timeout: seconds without any byte.
    """

    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.url = url.rstrip("/")
        self.retries = retries
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(self, method: str, path: str, *, idempotent: bool | None = None, **options: Any) -> Any:
        """The JSON of an answer. Options are httpx's: `json`, `params`. See `send`."""
        return self.send(method, path, idempotent=idempotent, **options).json()

    def send(
        self,
        method: str,
        path: str,
        *,
        idempotent: bool | None = None,
        content: Content | None = None,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """An answer of 2xx. Parameters that are None are left out.

        idempotent: whether sending twice is the same as once; by default of every method but POST and PATCH.
        Raises: ApiError if the server refuses, ServerUnreachableError if it can't be reached.
        """
        repeatable = method not in ("POST", "PATCH") if idempotent is None else idempotent
        options["params"] = {name: value for name, value in (params or {}).items() if value is not None}
        return self._persist(
            lambda: self._http.request(method, path, content=content() if content else None, **options), repeatable
        )

    def save(self, path: str, target: Path, params: Mapping[str, Any]) -> None:
        """What a GET answers, into a file, which is whole or not there. Raises: as `send`."""
        part = target.with_name(f"{target.name}.part")

        def attempt() -> httpx.Response:
            with self._http.stream("GET", path, params=params) as response:
                if not response.is_success:
                    response.read()
                else:
                    with part.open("wb") as file:
                        for chunk in response.iter_bytes():
                            file.write(chunk)
                return response

        try:
            self._persist(attempt, repeatable=True)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def events(self, path: str, after: int) -> Iterator[Message] | None:
        """Server-sent events after one, until the connection ends, whoever ended it; None when there will be no more.

        Raises: as `send`.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        request = self._http.build_request("GET", path, headers=headers)

        def attempt() -> httpx.Response:
            response = self._http.send(request, stream=True)
            if not response.is_success:
                response.read()
            return response

        response = self._persist(attempt, repeatable=True)
        if response.status_code == 204:
            response.close()
            return None
        return _messages(response)

    def _persist(self, attempt: Callable[[], httpx.Response], repeatable: bool) -> httpx.Response:
        """Make a request until it succeeds or there is no point in it."""
        for number in range(self.retries + 1):
            last, wait = number == self.retries, 0.0
            try:
                response = attempt()
            except httpx.TransportError as error:
                if last or not (repeatable or isinstance(error, NEVER_SENT)):
                    raise self._unreachable(error) from error
                reason = repr(error)
            else:
                if response.is_success:
                    return response
                error = api_error(response)
                if (
                    last
                    or not (repeatable or error.status == REFUSED)
                    or (error.status not in BUSY and error.code not in BUSY_CODES)
                ):
                    raise error
                wait = min(_retry_after(response), LONGEST_WAIT)
                reason = f"{response.request.method} {response.request.url}: status {response.status_code}"
            pause = pause_seconds(number) + wait
            log.debug("%s; again in %.1f s", reason, pause)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _unreachable(self, error: httpx.TransportError) -> ServerUnreachableError:
        return ServerUnreachableError(
            f"no answer from {self.url}: {error or type(error).__name__}",
            "is it running? `lambdahat serve` starts one here; LAMBDAHAT_URL or --url says where it is",
        )


def _retry_after(response: httpx.Response) -> float:
    said = response.headers.get("Retry-After", "")
    return float(said) if said.isdigit() else 0.0


def pause_seconds(number: int) -> float:
    """Before the attempt that follows so many that failed."""
    return min(0.2 * 2**number, 5.0) * random.uniform(0.75, 1.25)


def _messages(response: httpx.Response) -> Iterator[Message]:
    fields: dict[str, str] = {}
    with contextlib.closing(response), contextlib.suppress(httpx.TransportError):
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif "data" in fields:
                number = fields.get("id")
                yield Message(None if number is None else int(number), fields.get("event", ""), fields["data"])
            if not line:
                fields = {}


def api_error(response: httpx.Response) -> ApiError:
    """The problem that an answer describes; of anything else (a proxy's page, say) its status and first words."""
    problem: dict[str, Any] = {"code": "http_error", "detail": f"{response.reason_phrase}: {response.text[:200]}"}
    with contextlib.suppress(ValueError):
        answer = response.json()
        problem = answer if isinstance(answer, dict) and "code" in answer else problem
    return ApiError(
        status=response.status_code,
        code=problem["code"],
        detail=problem.get("detail") or problem.get("title") or response.reason_phrase,
        hint=problem.get("hint") or "",
        request_id=problem.get("request_id") or response.headers.get("X-Request-Id"),
        errors=problem.get("errors") or [],
    )
