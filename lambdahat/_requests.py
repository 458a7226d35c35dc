"""What every part of the client stands on: one server, seen with one key."""

import os
import uuid
from collections.abc import Iterator
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from lambdahat.errors import LambdahatError
from lambdahat.http import Transport
from lambdahat.objects import Resource

DEFAULT_URL = "http://127.0.0.1:8000"

T = TypeVar("T", bound=BaseModel)


class Requests:
    """Requests whose answers are objects, a list's page after page."""

    def __init__(self, url: str | None = None, key: str | None = None, *, timeout: float = 60.0, retries: int = 5):
        url = url or os.environ.get("LAMBDAHAT_URL") or DEFAULT_URL
        if not url.startswith(("http://", "https://")):
            raise LambdahatError(f"'{url}' is no address of a server", f"it starts with http://, as {DEFAULT_URL} does")
        key = key or os.environ.get("LAMBDAHAT_KEY")
        self.url = url.rstrip("/")
        self._http = Transport(self.url, key, timeout, retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, path: str, kind: type[T]) -> T:
        return kind.model_validate(self._http.json("GET", path))

    def _post(self, path: str, kind: type[T], body: Any, *, idempotent: bool = False) -> T:
        """idempotent: by its nature; otherwise by a key, under which the server does it once."""
        headers = {} if idempotent else {"Idempotency-Key": uuid.uuid4().hex}
        return kind.model_validate(self._http.json("POST", path, json=body, idempotent=True, headers=headers))

    def _pages(self, path: str, kind: type[T], **params: Any) -> Iterator[T]:
        after: str | None = None
        while True:
            page = self._http.json("GET", path, params={**params, "limit": 100, "after": after})
            yield from map(kind.model_validate, page["data"])
            after = page["next"]
            if not page["has_more"]:
                return


def ident(reference: str | Resource) -> str:
    """The id of what is given, or that itself."""
    return reference if isinstance(reference, str) else reference.id
