"""One JSON object a line on standard error, for our own log and for that of the libraries (uvicorn, Celery)."""

import logging
import threading
import time

import structlog

_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # Plain tracebacks: the pretty ones show local variables, and with them keys.
    structlog.processors.format_exc_info,
)

log = structlog.get_logger()


def join_standard_log() -> None:
    """Send our log through the standard library's, wherever that goes."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def write_json(level: int | str = logging.INFO) -> None:
    """Write everything that is logged in this process as JSON, warnings too."""
    join_standard_log()
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


class Outage:
    """Says once that something is away, and once that it is back, however often it is tried meanwhile."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: float | None = None
        self._lock = threading.Lock()

    def away(self, error: Exception) -> None:
        """A try failed."""
        with self._lock:
            if self._since is not None:
                return
            self._since = time.monotonic()
        log.warning(f"{self._what}_away", reason=str(error).partition("\n")[0])

    def back(self) -> None:
        """A try succeeded."""
        if self._since is None:  # as nearly always: without the lock
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            log.info(f"{self._what}_back", seconds=round(time.monotonic() - since, 1))
