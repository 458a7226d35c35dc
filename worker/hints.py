"""Hints on their way through the broker.

They carry no time: the clocks of the machines that send and take them need not agree. So they don't expire either; what
keeps old ones from piling up is that whoever sends counts them.
"""

import redis
from kombu.exceptions import OperationalError

from store.leases import Hint

ERRORS = (OperationalError, redis.RedisError, OSError)
"""The broker is away."""

URGENT, USUAL = 0, 6
"""Priorities."""

RUN_SHARD = "worker.run_shard"


def count(queue: str) -> int:
    """How many lie in the broker."""
    from worker.app import app

    with app.connection_or_acquire() as connection:
        return connection.default_channel.queue_declare(queue).message_count


def send(hint: Hint) -> None:
    """To whichever worker takes it."""
    from worker.app import app

    app.send_task(RUN_SHARD, [hint.shard_id], queue=hint.queue, priority=URGENT if hint.is_urgent else USUAL)
