"""What a query refuses, with a stable code."""

from llc.errors import InputError


class NotFoundError(InputError):
    """There is no such thing for this tenant."""

    def __init__(self, what: str, name: str, hint: str = "check the id, and that the key is its tenant's") -> None:
        super().__init__("not_found", f"there is no {what} '{name}'", hint)


class ConflictError(InputError):
    """The thing is there already, or in a state that does not allow this."""


class TooLargeError(InputError):
    """More bytes than are allowed."""

    def __init__(self, what: str, max_bytes: int) -> None:
        super().__init__(
            "too_large", f"{what} has more than {max_bytes} bytes", f"at most {max_bytes} bytes are allowed"
        )


class UnauthorizedError(InputError):
    """There is no key that works."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__("unauthorized", detail, hint)


class QuotaError(InputError):
    """The tenant would have more than it may."""

    def __init__(self, what: str, used: int, asked: int, limit: int) -> None:
        super().__init__(
            "quota_exceeded",
            f"{asked} more {what} than the {used} of now would be over the tenant's limit of {limit}",
            "delete series that are no longer needed, or ask the operator for more; GET /v1/usage says what is used",
        )


class DiskFullError(InputError):
    """There is no room."""

    def __init__(self) -> None:
        super().__init__(
            "disk_full",
            "there is no room left for files on the server",
            "its operator has to make room; try again then",
        )


class RateLimitedError(InputError):
    """Too many requests. seconds: until the next is answered."""

    def __init__(self, per_second: float, seconds: float) -> None:
        super().__init__(
            "rate_limited",
            f"this key asks more than {per_second:g} times a second",
            "wait as long as Retry-After says; lists have pages of up to 1000, and a job has a stream of events",
        )
        self.seconds = seconds
