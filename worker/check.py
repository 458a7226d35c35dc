"""`python -m worker.check`: looks at everything that `lambdahat doctor` can't see over HTTP, and prints it as JSON."""

import dataclasses
import json
from collections.abc import Iterator

from celery import Celery

from store.checks import Check, check_blobs, check_broker, check_database
from store.settings import StoreSettings

ANSWER_SECONDS = 2.0


def checks(settings: StoreSettings) -> Iterator[Check]:
    """All of them."""
    broker = check_broker(settings.broker_url)
    served = queues_of_workers(settings.broker_url) if broker.state == "ok" else None
    yield from check_database(settings, served)
    yield broker
    if served is not None:
        yield _workers(served)
    yield check_blobs(settings)


def queues_of_workers(broker_url: str) -> dict[str, set[str]]:
    """The queues that each worker serves, of those that answer."""
    with Celery("lambdahat-doctor", broker=broker_url, set_as_current=False) as app:
        answers = app.control.inspect(timeout=ANSWER_SECONDS).active_queues() or {}
    return {worker: {queue["name"] for queue in queues} for worker, queues in answers.items()}


def _workers(served: dict[str, set[str]]) -> Check:
    if not served:
        hint = "start one (python -m worker); one that has just started needs some seconds"
        return Check("workers", "broken", "none answers", hint)
    return Check("workers", "ok", "; ".join(f"{name} ({', '.join(sorted(queues))})" for name, queues in served.items()))


def main() -> None:
    """Look, and print."""
    found = checks(StoreSettings.model_validate({}))
    print(json.dumps([dataclasses.asdict(check) for check in found]))


if __name__ == "__main__":
    main()
