"""Recording checkpoints from a training loop, without slowing it and without losing any."""

import logging
import math
import queue
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from lambdahat.client import Client
from lambdahat.errors import ApiError, LambdahatError, RecorderError, ServerUnreachableError
from lambdahat.objects import Series
from lambdahat.spool import Spool

log = logging.getLogger(__name__)


class Recorder:
    """Keeps the checkpoints of a training run and posts them while training goes on.

        with Recorder(client, series, schedule=log_linear_steps(total)) as recorder:
            for step in range(total + 1):
                recorder.record(step, model.state_dict())
                ...

    A recorded checkpoint is written to a spool folder at once, so later changes of the weights don't touch it; a thread
    posts it from there. Training waits for a local file only, never for the network, and a server that is away loses
    nothing: what an earlier run left in the folder is posted first, and stays what it is if this run comes to the same
    steps, since a series' checkpoint is never replaced.

    schedule: the steps to keep (default: all that `record` is called with); folder: of the spool, by default
    `lambdahat_spool/<series id>`; keep: leave posted files in the folder.
    """

    def __init__(
        self,
        client: Client,
        series: str | Series,
        schedule: Collection[int] | None = None,
        *,
        folder: str | Path | None = None,
        keep: bool = False,
    ) -> None:
        self._client = client
        self._series = series if isinstance(series, str) else series.id
        self._schedule = None if schedule is None else frozenset(schedule)
        self._keep = keep
        self._spool = Spool(folder or Path("lambdahat_spool") / self._series)
        self._spool.claim(self._series)
        self._left = self._spool.checkpoints()
        self._steps: set[int] = set()
        self._failures: dict[str, str] = {}
        self._queue: queue.SimpleQueue[tuple[int, Path] | None] = queue.SimpleQueue()
        self._deadline = math.inf
        self._closing = threading.Event()
        for checkpoint in self._left.items():
            self._queue.put(checkpoint)
        self._thread = threading.Thread(target=self._post_all, name="lambdahat-recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except RecorderError as error:
            if exception is None:
                raise
            log.error("%s", error)  # The training loop's own exception is the one to see.

    @property
    def folder(self) -> Path:
        """Where checkpoints wait to be posted."""
        return self._spool.folder

    def wants(self, step: int) -> bool:
        """Whether the schedule has this step: for metrics that are worth computing only then."""
        return self._schedule is None or step in self._schedule

    def record(self, step: int, state: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> bool:
        """Keep these parameters if the schedule has this step; returns whether it has.

        state: parameters by name, as `module.state_dict()`; metrics: what the loop measured here, if anything.
        Raises: LambdahatError if the step was recorded before, or if something in `state` is no array of numbers.
        """
        if self._closing.is_set():
            raise LambdahatError("the recorder is closed", "record inside its `with` block")
        step = int(step)
        if not self.wants(step):
            return False
        if step in self._steps:
            raise LambdahatError(f"step {step} was recorded already", "a series has one checkpoint a step")
        self._steps.add(step)
        if step in self._left:
            log.info("step %d was recorded by an earlier run, which the series keeps", step)
        else:
            path = self._spool.add(step, state, {name: float(value) for name, value in (metrics or {}).items()})
            self._queue.put((step, path))
        return True

    def close(self, timeout: float = 60.0) -> None:
        """Post what is left. A server that is away is given `timeout` seconds to come back.

        Raises: RecorderError if checkpoints could not be posted; their files stay in the folder.
        """
        self._deadline = min(self._deadline, time.monotonic() + timeout)
        self._closing.set()
        self._queue.put(None)
        self._thread.join()
        if self._failures:
            name, reason = next(iter(self._failures.items()))
            count = "1 checkpoint" if len(self._failures) == 1 else f"{len(self._failures)} checkpoints"
            raise RecorderError(
                f"{count} of series '{self._series}' could not be posted; {name}: {reason}",
                f"they are safe; when the cause is gone: lambdahat push {self._spool.folder}",
                self._failures,
            )

    def _post_all(self) -> None:
        while (checkpoint := self._queue.get()) is not None:
            step, path = checkpoint
            try:
                self._post(step, path)
            except (LambdahatError, OSError, ValueError) as error:
                log.warning("checkpoint %s was not posted: %s", path.name, error)
                self._failures[path.name] = str(error)
            else:
                if not self._keep:
                    self._spool.remove(path)

    def _post(self, step: int, path: Path) -> None:
        """Post one checkpoint, waiting for a server that is away. Raises what can't be helped by waiting."""
        pause = 1.0
        while True:
            if time.monotonic() > self._deadline:
                raise ServerUnreachableError("the server was away until the recorder closed")
            try:
                self._client.add_checkpoint(self._series, step, path, self._spool.metrics(path))
                return
            except (ServerUnreachableError, ApiError) as error:
                if isinstance(error, ApiError) and error.status < 500:
                    raise
                log.info("checkpoint %s has to wait: %s", path.name, error)
                if self._closing.wait(pause):
                    time.sleep(min(pause, max(self._deadline - time.monotonic(), 0.01)))
            pause = min(2 * pause, 30.0)
