"""What can go wrong, by name. Each fault is done when what it did is over; what it broke may take longer to mend.

`cost`: how many attempts at shards it may use up, beside none at all.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

import psutil
import psycopg

from tests.chaos.proxy import Mode
from tests.chaos.world import CHILDREN, LEASE_SECONDS, World


@dataclass(frozen=True)
class Fault:
    """inflict: returns False if there was nothing to break just then."""

    inflict: Callable[[World, Random], bool]
    cost: int = 0


def _signal(pid: int | None, what: signal.Signals) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return False
    return True


def _kill(name: str) -> Callable[[World, Random], bool]:
    return lambda world, _: _signal(world.pid(name), signal.SIGKILL)


def _freeze(name: str, seconds: float) -> Callable[[World, Random], bool]:
    """SIGSTOP, then SIGCONT: a machine that was suspended, or swapped out."""

    def inflict(world: World, _: Random) -> bool:
        pid = world.pid(name)
        if not _signal(pid, signal.SIGSTOP):
            return False
        time.sleep(seconds)
        return _signal(pid, signal.SIGCONT)

    return inflict


def _kill_child(world: World, random: Random) -> bool:
    children = world.computing()
    return bool(children) and _signal(random.choice(children).pid, signal.SIGKILL)


def _freeze_child(world: World, random: Random) -> bool:
    """For longer than a lease, but not so long that it counts as hung."""
    children = world.computing()
    if not children:
        return False
    child = random.choice(children)
    try:
        child.suspend()
        time.sleep(1.5 * LEASE_SECONDS)
        child.resume()
    except psutil.Error:
        return False
    return True


def _flush(world: World, _: Random) -> bool:
    try:
        world.flush_broker()
    except OSError:
        return False
    return True


def _network(link: str, mode: Mode, seconds: float) -> Callable[[World, Random], bool]:
    def inflict(world: World, _: Random) -> bool:
        proxy = world.database if link == "database" else world.broker
        with proxy.being(mode):
            time.sleep(seconds)
        return True

    return inflict


def _reset(link: str) -> Callable[[World, Random], bool]:
    def inflict(world: World, _: Random) -> bool:
        (world.database if link == "database" else world.broker).reset()
        return True

    return inflict


def _set_clock(hours: float) -> Callable[[World, Random], bool]:
    def inflict(world: World, _: Random) -> bool:
        try:
            return world.set_clock(3600 * hours)
        except psycopg.Error:
            return False

    return inflict


LONG = 2.5 * LEASE_SECONDS
SHORT = LEASE_SECONDS / 3

FAULTS: Mapping[str, Fault] = {
    "kill child": Fault(_kill_child, cost=1),
    "kill worker": Fault(_kill("worker"), cost=CHILDREN),
    "kill sweeper": Fault(_kill("sweeper")),
    "kill api": Fault(_kill("api")),
    # After its start nothing is reaped for a lease; what was on its way out may have been lost before.
    "kill postgres": Fault(_kill("postgres")),
    "kill valkey": Fault(_kill("valkey")),
    "flush broker": Fault(_flush),
    "freeze worker": Fault(_freeze("worker", LONG), cost=CHILDREN),
    "freeze child": Fault(_freeze_child),
    "freeze sweeper": Fault(_freeze("sweeper", LONG)),
    "freeze api": Fault(_freeze("api", SHORT)),
    "freeze valkey": Fault(_freeze("valkey", LONG)),
    "database slow": Fault(_network("database", "delay", LONG), cost=CHILDREN),
    "database refuses": Fault(_network("database", "refuse", SHORT)),
    "database refuses for long": Fault(_network("database", "refuse", LONG), cost=CHILDREN),
    "database half-open": Fault(_network("database", "half_open", LONG), cost=CHILDREN),
    "database resets": Fault(_reset("database")),
    "broker slow": Fault(_network("broker", "delay", LONG)),
    "broker refuses": Fault(_network("broker", "refuse", LONG)),
    "broker half-open": Fault(_network("broker", "half_open", LONG), cost=CHILDREN),
    "broker resets": Fault(_reset("broker")),
    "clock set forward": Fault(_set_clock(+1)),
    "clock set back": Fault(_set_clock(-1)),
}
