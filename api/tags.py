"""Tags as questions name them: tag=name:value."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from pydantic import StringConstraints

from api.fields import Text, scalar
from llc.errors import InputError
from store.stages import Asked

MAX_TAGS = 8
MAX_TAG = 500
"""Characters: of more and longer ones an address might have more bytes than a server reads."""
MAX_COLONS = 8
"""Of a tag, after which its value may begin: names may have colons, too."""

TagQuery = Annotated[
    list[Annotated[Text, StringConstraints(max_length=MAX_TAG)]] | None,
    Query(max_length=MAX_TAGS, description="name:value, as in tag=optimizer:adamw; several: all of them."),
]


def parsed(given: Sequence[str] | None) -> list[Asked]:
    """Of each of these tags, what it may be: name and value, the text or what it is as JSON. Raises: InputError
    `bad_tag`.
    """
    return [_alternatives(one) for one in given or ()]


def _alternatives(tag: str) -> Asked:
    parts = tag.split(":")
    if len(parts) < 2:
        raise InputError("bad_tag", f"{tag[:80]!r} is no tag with its value", "for example: tag=optimizer:adamw")
    splits = ((":".join(parts[:k]), ":".join(parts[k:])) for k in range(1, min(len(parts), MAX_COLONS + 1)))
    return [{name: may_be} for name, value in splits for may_be in (value, *_as_json(value))]


def _as_json(text: str) -> list[Any]:
    """The number, true, false or null that a text is, if any."""
    try:
        value = json.loads(text, parse_constant=str)
        return [] if isinstance(value, str) else [scalar(value)]
    except (ValueError, RecursionError):
        return []
