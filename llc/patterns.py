"""Which parameters a pattern chooses: names with `*` and `?` (`layers.0.*`), with slices of the dimensions if wanted,
as in Python (`layers.0.self_attn.in_proj_weight[0:16, :]`: the queries of the first head).
"""

import fnmatch
import re
from collections.abc import Iterator, Sequence

from llc.errors import InputError
from llc.layout import Layout

_PATTERN = re.compile(r"(?P<name>[^\[\]]+)(\[(?P<slices>[^\[\]]+)\])?")


def matching(layout: Layout, patterns: Sequence[str]) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """(name, slices of its dimensions) of every parameter that a pattern chooses, once for each pattern that does.

    Raises: InputError `no_such_parameter` for a pattern that no parameter has, `bad_pattern` for slices that don't fit.
    """
    for pattern in patterns:
        parts = _PATTERN.fullmatch(pattern.strip())
        if parts is None:
            raise InputError(
                "bad_pattern",
                f"'{pattern}' is no pattern over parameter names",
                "write a name with * and ?, and slices in brackets if wanted: layers.0.weight[0:16, :]",
            )
        name = parts["name"].strip()
        found = [parameter for parameter in layout.shapes if fnmatch.fnmatchcase(parameter, name)]
        if not found:
            raise InputError(
                "no_such_parameter",
                f"no parameter is called '{name}'",
                f"the model's parameters: {', '.join(layout.shapes)}"[:2000],
            )
        for parameter in found:
            yield parameter, _slices(parts["slices"], parameter, tuple(layout.shapes[parameter]))


def _slices(text: str | None, name: str, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """`0:16, :` → slices; a single number is a slice of one. They take something of the shape."""
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    try:
        if len(parts) > len(shape):
            raise ValueError
        found = tuple(map(_slice, parts))
    except ValueError:
        raise InputError(
            "bad_pattern",
            f"'[{text}]' are no slices of '{name}', whose shape is {list(shape)}",
            "one start:stop for each dimension, as in Python, without steps",
        ) from None
    if not all(len(range(*part.indices(size))) for part, size in zip(found, shape, strict=False)):
        raise InputError(
            "bad_pattern",
            f"'[{text}]' takes nothing of '{name}', whose shape is {list(shape)}",
            "start:stop counts from 0 and leaves out the stop, as in Python",
        )
    return found


def _slice(text: str) -> slice:
    ends = [int(end) if end.strip() else None for end in text.split(":")]
    match ends:
        case [int(only)]:
            return slice(only, only + 1 or None)
        case [start, stop]:
            return slice(start, stop)
    raise ValueError
