"""How often a key may ask: token buckets (one second's worth is held), of this process."""

import threading
import time

from store.errors import RateLimitedError

FORGET_SECONDS = 60.0


class Rates:
    """Buckets by key; those that have long been full are forgotten."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}
        """Tokens, and when there were so many."""
        self._tidy_at = 0.0

    def take(self, key: str) -> None:
        """One token. Raises: RateLimitedError, if there is none."""
        now, most = time.monotonic(), max(1.0, self._per_second)
        with self._lock:
            tokens, then = self._buckets.get(key, (most, now))
            tokens = min(most, tokens + (now - then) * self._per_second)
            self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
            if now > self._tidy_at:
                self._tidy_at = now + FORGET_SECONDS
                self._buckets = {
                    name: found for name, found in self._buckets.items() if now - found[1] < FORGET_SECONDS
                }
        if tokens < 1:
            raise RateLimitedError(self._per_second, (1 - tokens) / self._per_second)
