"""What can go wrong on the client's side, in words a person can act on."""

from collections.abc import Mapping, Sequence
from typing import Any


class LambdahatError(Exception):
    """Something is wrong: `detail` says what, `hint` what to do about it (possibly nothing: '')."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.detail} ({self.hint})" if self.hint else self.detail


class ServerUnreachableError(LambdahatError):
    """No answer from the server, after all retries."""


class ApiError(LambdahatError):
    """The server refused a request (RFC 9457 problem+json).

    status: of HTTP; code: stable, `snake_case`; errors: the fields that are wrong, as {location, message};
    request_id: what the server's log calls this request.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str = "",
        request_id: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(detail, hint)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.errors = list(errors)

    @property
    def fields(self) -> list[str]:
        """`location: message` of each field that is wrong, unless the detail says it already."""
        fields = [f"{error.get('location', '')}: {error.get('message', '')}" for error in self.errors]
        return [field for field in fields if field not in self.detail]

    def __str__(self) -> str:
        lines = [f"{self.detail} [{self.status} {self.code}]", *(f"  {field}" for field in self.fields)]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        if self.request_id and self.status >= 500:
            lines.append(f"  request: {self.request_id}")
        return "\n".join(lines)


class RecorderError(LambdahatError):
    """Checkpoints are still in the spool folder. `failures`: {file name: why}."""

    def __init__(self, detail: str, hint: str, failures: Mapping[str, str]) -> None:
        super().__init__(detail, hint)
        self.failures = dict(failures)
