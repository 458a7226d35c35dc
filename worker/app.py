"""The Celery app. A message carries the id of a shard and nothing else: PostgreSQL is the truth."""

from collections.abc import Sequence

from celery import Celery
from celery.signals import setup_logging, worker_shutting_down

from store.database import connect
from store.settings import StoreSettings
from store.tables import QUEUES
from worker import watchdog
from worker.hints import RUN_SHARD, URGENT, USUAL
from worker.supervisor import Supervisor

settings = StoreSettings.model_validate({})  # from the environment
app = Celery("lambdahat", broker=settings.broker_url)
app.conf.update(
    task_acks_late=False,  # the database sends a lost hint again
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    task_publish_retry=False,  # the sweeper tries again by itself
    task_default_queue=QUEUES[0],
    worker_enable_remote_control=True,  # off, a worker can stall for ever after a broker outage
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "priority_steps": [URGENT, USUAL],
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 5,
    },
)

supervisor = Supervisor(settings)


def watch(queues: Sequence[str]) -> None:
    """End this process when it is deaf to these queues. On a connection of its own: the others may all be in use."""
    engine = connect(settings.database_url, pool_size=1, seconds=settings.database_seconds)
    watchdog.watch(supervisor, engine, queues, settings.idle_seconds)


@app.task(name=RUN_SHARD)
def run_shard(shard_id: str) -> None:
    """Run a shard, if it is still due."""
    supervisor.run(shard_id)


@setup_logging.connect
def _keep_our_log(**_: object) -> None:
    """Celery leaves the log to whoever answers this signal, and its records go where ours go."""


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    supervisor.stop()
