"""What a child may take of the machine."""

import contextlib
import os
import resource
import sys
from pathlib import Path

import psutil

NICENESS = 10
SHARE = 0.9
"""Of the memory, for all children together."""

AUTOGROUP = Path("/proc/self/autogroup")
CGROUP = Path("/sys/fs/cgroup/memory.max")


def share_of_memory(children: int) -> int:
    """Bytes for each, of the machine's memory or what its container may have of it."""
    total = psutil.virtual_memory().total
    if CGROUP.exists() and (limit := CGROUP.read_text().strip()).isdigit():
        total = min(total, int(limit))
    return int(SHARE * total / children)


def limit_memory(num_bytes: int) -> None:
    """For this process, from now on: of what it may write to (RLIMIT_DATA). Of addresses CUDA takes far more."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, num_bytes))


def give_way() -> None:
    """To whoever answers requests on the same machine. The mathematics takes what is left, which is nearly all.

    Linux shares a core between sessions first (sched(7), autogroups) and heeds niceness only within one: so the session
    has to be the process's own, and nice as well.
    """
    os.nice(NICENESS)
    if AUTOGROUP.exists():
        with contextlib.suppress(OSError):  # it leads a session already; or we may not
            os.setsid()
            AUTOGROUP.write_text(f"{NICENESS}\n")
