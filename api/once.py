"""What creates something is done once for each Idempotency-Key, however often it is asked for."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.dependencies import Shared, State, Writer
from store import idempotency
from store.idempotency import Answer
from store.tables import ApiKey

Shown = TypeVar("Shown", bound=BaseModel)

Key = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Of your making, such as a random UUID: the same request with it again, within a day, does nothing "
        "and is given the same answer.",
    ),
]


class _Once:
    """Does something in a transaction, and keeps the answer with it if there is a key."""

    def __init__(
        self, request: Request, response: Response, caller: ApiKey, shared: State, key: str | None, fingerprint: str
    ) -> None:
        self._request, self._response, self._shared = request, response, shared
        self._key, self._fingerprint = key, fingerprint
        self.tenant_id = caller.tenant_id

    def __call__(self, act: Callable[[Session], Shown]) -> Shown:
        with self._shared.session() as session:
            if self._key is None:
                return act(session)
            before = idempotency.begin(session, self.tenant_id, self._key, self._fingerprint)
            answer = before or self._answer(act(session))
            if before is None:
                idempotency.end(session, self.tenant_id, self._key, self._fingerprint, answer)
        headers = answer.headers | ({} if before is None else {"Idempotency-Replayed": "true"})
        # FastAPI passes a response on as it is.
        return cast(Any, Response(answer.body, answer.status, headers, media_type="application/json"))

    def _answer(self, shown: BaseModel) -> Answer:
        status = self._response.status_code or self._request.scope["route"].status_code or 200
        return Answer(status, dict(self._response.headers), shown.model_dump_json())


async def _once(
    request: Request, response: Response, caller: Writer, shared: Shared, idempotency_key: Key = None
) -> _Once:
    said = f"{request.method} {request.url.path}\n".encode() + await request.body()
    return _Once(request, response, caller, shared, idempotency_key, hashlib.sha256(said).hexdigest())


Once = Annotated[_Once, Depends(_once)]
