"""Tags as questions name them: tag=name:value."""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from pydantic import StringConstraints

from api.fields import Text
from llc.errors import InputError

MAX_TAGS = 8
MAX_TAG = 500
"""Characters: of more and longer ones an address might have more bytes than a server reads."""

TagQuery = Annotated[
    list[Annotated[Text, StringConstraints(max_length=MAX_TAG)]] | None,
    Query(max_length=MAX_TAGS, description="name:value, as in tag=optimizer:adamw; several: all of them."),
]


def parsed(given: Sequence[str] | None) -> dict[str, list[Any]]:
    """What each of these tags may be: the text, or what it is as JSON. Raises: InputError `bad_tag`."""
    tags: dict[str, list[Any]] = {}
    for one in given or ():
        name, colon, value = one.partition(":")
        if not colon:
            raise InputError("bad_tag", f"{one[:80]!r} is no tag with its value", "for example: tag=optimizer:adamw")
        tags[name] = [value, *_as_json(value)]
    return tags


def _as_json(text: str) -> list[Any]:
    """The number, true, false or null that a text is, if any."""
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return []
    is_scalar = value is None or (isinstance(value, bool | int | float) and math.isfinite(value))
    return [value] if is_scalar else []
