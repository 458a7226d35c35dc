"""The HTTP service, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api import (
    alignment,
    blobs,
    checkpoints,
    compare,
    curves,
    datasets,
    draws,
    evidence,
    figures,
    health,
    jobs,
    keys,
    metrics,
    models,
    openapi,
    pages,
    problems,
    series,
    stages,
    uploads,
    usage,
    webhooks,
)
from api.callers import Callers
from api.dependencies import State
from api.etags import ETags
from api.kept import Kept
from api.middleware import BodyLimit, RequestLog
from api.rate import Rates
from api.reads import DRAWING_THREADS, FILE_THREADS, THREADS
from api.root_path import UnderPath
from api.settled import settle
from api.streams import Announcements
from store import logs
from store.blobs import BlobStore
from store.database import connect
from store.settings import StoreSettings


def create_app() -> FastAPI:
    """The service, configured by the environment (`LAMBDAHAT_*`). Connects to nothing before the first request."""
    logs.join_standard_log()
    settings = StoreSettings.model_validate({})
    engine = connect(settings.database_url, seconds=settings.database_seconds)
    connections = THREADS + DRAWING_THREADS
    reads = connect(settings.database_url, pool_size=connections, seconds=settings.database_seconds, autocommit=True)
    shared = State(
        settings,
        engine,
        reads,
        CapacityLimiter(THREADS),
        CapacityLimiter(DRAWING_THREADS),
        CapacityLimiter(FILE_THREADS),
        BlobStore(settings.blob_dir, settings.disk_floor_bytes),
        Announcements(settings.database_url),
        Rates(settings.rate_per_second),
        Callers(),
        Kept(),
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        settle()
        yield
        await shared.announcements.end()
        shared.engine.dispose()
        shared.reads.dispose()

    app = FastAPIOffline(  # whose /docs needs no internet
        title="lambdahat",
        version=openapi.VERSION,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        static_url="/assets/docs",
        favicon_url="assets/icon.svg",
    )
    app.state.shared = shared
    resources = (
        keys,
        usage,
        blobs,
        uploads,
        datasets,
        models,
        series,
        checkpoints,
        jobs,
        draws,
        curves,
        figures,
        stages,
        evidence,
        compare,
        alignment,
        webhooks,
        health,
        metrics,
        pages,
    )
    for resource in resources:
        app.include_router(resource.router)
    app.webhooks.post("event", summary="What happened")(webhooks.told)  # for /openapi.json
    problems.install(app)
    openapi.install(app)
    app.add_middleware(BodyLimit, seconds=settings.request_seconds)
    app.add_middleware(ETags)
    app.add_middleware(RequestLog)
    app.add_middleware(UnderPath, root_path=settings.root_path)
    return app
