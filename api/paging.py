"""Lists, a page at a time: opaque cursors over the order's own key, so that no insertion shifts a page."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from llc.errors import InputError
from store.owned import is_id

Row = TypeVar("Row")
Item = TypeVar("Item")
Key = TypeVar("Key")

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of a page.")]
After = Annotated[str | None, Query(max_length=1000, description="Cursor: the 'next' of the page before.")]


def _an_id(text: str) -> str:
    if not is_id(text):
        raise ValueError("no id")
    return text


CursorId = Annotated[str, AfterValidator(_an_id)]
"""As it stands in a cursor, which anybody may make up."""
ID = TypeAdapter(CursorId)
"""The cursor of a list that is ordered by its ids."""


class Page(BaseModel, Generic[Item]):
    """Part of a list."""

    data: list[Item]
    has_more: bool
    next: str | None = Field(description="Cursor of the next page, if there is one.")


def page(
    rows: Sequence[Row], limit: int, key: Callable[[Row], Any], show: Callable[[Sequence[Row]], list[Item]]
) -> Page[Item]:
    """The page of rows that were asked for with one to spare. key: where a row stands in the order."""
    shown = rows[:limit]
    has_more = len(rows) > limit
    return Page(data=show(shown), has_more=has_more, next=_encode(key(shown[-1])) if has_more else None)


def position(after: str | None, kind: TypeAdapter[Key]) -> Key | None:
    """The key that a cursor holds. Raises: InputError `bad_cursor`."""
    if after is None:
        return None
    try:
        return kind.validate_json(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
    except (ValueError, ValidationError):
        raise InputError(
            "bad_cursor", "'after' is no cursor of this list", "pass the 'next' of the page before"
        ) from None


def _encode(key: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")
