"""Answers about what does not change any more, kept for who asks next."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

MOST_BYTES = 64 * 2**20
OWN_BYTES = 1000
"""Of an entry, besides what is kept and what it answers."""


class Kept:
    """Bytes by what they answer; of those asked for least lately, as many go as are too many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What is kept, or else is made now."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        made = make()
        with self._lock:
            if key not in self._found:
                self._size += _size(key, made)
                self._found[key] = made
            while self._size > MOST_BYTES:
                self._size -= _size(*self._found.popitem(last=False))
        return made


def _size(key: Hashable, kept: bytes) -> int:
    """Keys have what was asked for, which may be more than the answer."""
    return OWN_BYTES + len(repr(key)) + len(kept)
