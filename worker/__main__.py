"""`python -m worker`: a Celery worker whose threads each supervise one child process of mathematics."""

import argparse
import os
import sys
from pathlib import Path

from store import logs


def main() -> None:
    """Read the command line and work until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: gpu where there is one")
    parser.add_argument("--concurrency", type=int, help="children at once; default: one per GPU, or one per core")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    arguments = parser.parse_args()

    gpus = count_gpus()
    device = arguments.device if arguments.device != "auto" else "gpu" if gpus else "cpu"
    concurrency = arguments.concurrency or (gpus if device == "gpu" else count_cores()) or 1

    from worker.app import app, supervisor, watch  # reads LAMBDAHAT_*, so not before --help

    logs.write_json(arguments.log_level.upper())
    # Celery's signal handlers print words there, between the lines of JSON where both go to one file.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    queues = ("auto", device)
    watch(queues)
    if device == "gpu":
        gpus = max(gpus, 1)
        supervisor.use_gpus(gpus)
        concurrency = min(concurrency, gpus)  # one more would wait for a GPU with a shard in its hands
    supervisor.prepare(concurrency)
    app.worker_main(
        [
            "--quiet",  # no banner between the lines of JSON
            "worker",
            "--pool=threads",
            f"--concurrency={concurrency}",
            f"--queues={','.join(queues)}",
            f"--hostname={device}-{os.getpid()}@%h",
            f"--loglevel={arguments.log_level}",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def count_gpus() -> int:
    """NVIDIA GPUs that this process may use, without initialising CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return sum(1 for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit())


if __name__ == "__main__":
    main()
