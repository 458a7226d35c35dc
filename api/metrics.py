"""/metrics: for Prometheus. Requests of this process, or of all that PROMETHEUS_MULTIPROC_DIR is given to, and from the
database what all workers do.
"""

import os
import secrets
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.dependencies import Shared
from api.problems import RESPONSES
from store.errors import UnauthorizedError
from store.figures import Figures, figures

router = APIRouter(tags=["health"], responses=RESPONSES)

LOOPBACK = ("127.0.0.1", "::1")

REQUESTS = Histogram(
    "lambdahat_request_seconds",
    "From a request's first byte to its answer's last.",
    ["method", "route", "status"],
    registry=None,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
"""route: as the endpoint is declared, so that there are few."""


class _Of(Collector):
    """The figures of one moment as metrics."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        found = self._figures
        for name, about, labels, counts in (
            ("jobs", "Jobs by state.", ["state"], found.jobs),
            ("shards", "Shards by queue and state.", ["queue", "state"], found.shards),
            ("queue_age_seconds", "How long the oldest due shard has waited.", ["queue"], found.queue_ages),
            ("webhook_deliveries", "Of the last 30 days, by state.", ["state"], found.webhook_deliveries),
            ("blobs", "Files kept.", [], [((), found.blobs)]),
            ("blob_bytes", "Their size.", [], [((), found.blob_bytes)]),
        ):
            gauge = GaugeMetricFamily(f"lambdahat_{name}", about, labels=labels)
            for values, number in counts:
                gauge.add_metric(values, number)
            yield gauge
        for name, about, number in (
            ("claims", "Attempts at shards.", found.claims),
            ("lease_expiries", "Shards whose worker was not heard of any more.", found.lease_expiries),
            ("row_steps", "Row-steps done: a row is one chain at one checkpoint.", found.row_steps),
        ):
            yield CounterMetricFamily(f"lambdahat_{name}", about, value=number)


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(
    request: Request, shared: Shared, authorization: Annotated[str, Header(include_in_schema=False)] = ""
) -> Response:
    """Of all tenants together: for callers on this machine; or, if LAMBDAHAT_METRICS_TOKEN is set, who has that."""
    token, caller = shared.settings.metrics_token, request.client
    if token is None and (caller is None or caller.host not in LOOPBACK):
        raise UnauthorizedError("figures are for this machine only", "set LAMBDAHAT_METRICS_TOKEN, and send it")
    if token is not None and not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise UnauthorizedError("this is not the token", "send 'Authorization: Bearer …' with LAMBDAHAT_METRICS_TOKEN")
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)
    else:
        registry.register(REQUESTS)
    with shared.reading() as session:
        registry.register(_Of(figures(session)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
