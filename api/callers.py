"""Keys that were just found good, so that who asks often is not looked up each time."""

import hashlib
import time

from store.tables import ApiKey

KNOWN_SECONDS = 1.0
"""So long another process of the API may take a key that was revoked."""

MOST = 10_000


class Callers:
    """By the hash of the text that was sent: no key is kept in memory."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[float, ApiKey]] = {}

    def get(self, text: str) -> ApiKey | None:
        """The key, if it was found good within a second."""
        found = self._known.get(_hash(text))
        return found[1] if found is not None and time.monotonic() - found[0] < KNOWN_SECONDS else None

    def put(self, text: str, key: ApiKey) -> None:
        """It was found good now."""
        if len(self._known) >= MOST:
            self._known = {}
        self._known[_hash(text)] = time.monotonic(), key

    def forget(self) -> None:
        """A key was revoked."""
        self._known = {}


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
