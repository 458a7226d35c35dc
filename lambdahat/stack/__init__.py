"""`lambdahat serve`: real PostgreSQL and Valkey from their wheels, the API, the workers and the sweeper, supervised."""

import importlib
from typing import TYPE_CHECKING, Any

from lambdahat.stack.address import DEFAULT_HOST, DEFAULT_PORT
from lambdahat.stack.errors import StackError

if TYPE_CHECKING:
    from lambdahat.stack.folder import default_root
    from lambdahat.stack.foreground import serve
    from lambdahat.stack.supervisor import Stack

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "Stack", "StackError", "default_root", "serve"]

# Imported when asked for: a client on Windows, which can't run the stack, needs the names above all the same.
_HOMES = {"Stack": "supervisor", "default_root": "folder", "serve": "foreground"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
