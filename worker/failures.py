"""What goes wrong while a shard is computed, by names that a person can act on."""

import errno
from dataclasses import asdict, dataclass
from typing import Any

from llc.errors import InputError


@dataclass(frozen=True)
class Failure:
    """permanent: the next attempt would end the same."""

    code: str
    detail: str
    hint: str = ""
    permanent: bool = False

    def words(self) -> dict[str, Any]:
        """As shown with the shard."""
        return {key: value for key, value in asdict(self).items() if key != "permanent"}


class FailedError(Exception):
    """A shard that can't be computed, now or ever."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def failure_of(error: Exception) -> Failure | None:
    """What this error means; None if it is no one's but ours."""
    if isinstance(error, InputError):
        return Failure(error.code, error.detail, error.hint, permanent=True)
    if _is_out_of_memory(error):
        return Failure(
            "out_of_memory",
            f"the computation needs more memory than it may have: {error}".split("\n", 1)[0][:500],
            "fewer checkpoints_per_shard or a smaller batch_size; or a worker with more, LAMBDAHAT_MEMORY_BYTES",
            permanent=True,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure(
            "disk_full", f"there is no room on the disk of the blobs: {error}", "make room, or a larger disk"
        )
    if isinstance(error, OSError):
        return Failure("file_error", f"a file could not be read or written: {error}", "look at the disk of the blobs")
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """torch has a type of its own for CUDA, and none for the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
