"""A worker that hears nothing although it should ends, to be started again."""

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.api.lab import Lab
from tests.chaos.proxy import broker_through, in_front_of_broker
from tests.receiver import eventually
from tests.worker.programs import process
from worker.watchdog import DEAF

IDLE_SECONDS = 2


@pytest.mark.usefixtures("no_other_work")
def test_a_worker_whose_broker_has_gone_silent_ends(
    lab: Lab, series: str, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    """Nothing gets through to the worker any more, and nobody tells it, while the sweeper sends hints."""
    environment: dict[str, Any] = os.environ | {
        "LAMBDAHAT_DATABASE_URL": database_url,
        "LAMBDAHAT_BROKER_URL": broker_url,
        "LAMBDAHAT_BLOB_DIR": str(lab.blob_dir),
        "LAMBDAHAT_IDLE_SECONDS": str(IDLE_SECONDS),
        "LAMBDAHAT_DISPATCH_AGAIN_SECONDS": "1",
    }
    log = tmp_path / "worker"
    with ExitStack() as ending:
        broker = ending.enter_context(in_front_of_broker(broker_url))
        through = environment | {"LAMBDAHAT_BROKER_URL": broker_through(broker, broker_url)}
        ending.enter_context(process("worker.sweeper", tmp_path / "sweeper", environment))
        worker = ending.enter_context(process("worker --device cpu --concurrency 1", log, through))
        eventually(lambda: "ready" in log.read_text(), 60)
        with broker.being("half_open"):
            time.sleep(2 * IDLE_SECONDS)
            assert worker.poll() is None  # it is idle, but there was nothing to hear
            lab.job(series, measures={"loss": {}, "llc": None})
            assert worker.wait(60) == DEAF
    (said,) = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "deaf"]
    assert said["shards"] == 1
