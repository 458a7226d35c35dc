"""The HTTP service, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from api import (
    blobs,
    checkpoints,
    curves,
    datasets,
    draws,
    health,
    jobs,
    keys,
    metrics,
    models,
    openapi,
    pages,
    problems,
    series,
)
from api.dependencies import State
from api.middleware import BodyLimit, RequestLog
from api.root_path import UnderPath
from api.streams import Announcements
from store import logs
from store.blobs import BlobStore
from store.database import connect
from store.settings import StoreSettings

ABANDONED_SECONDS = 24 * 3600.0


def create_app() -> FastAPI:
    """The service, configured by the environment (`LAMBDAHAT_*`). Connects to nothing before the first request."""
    logs.join_standard_log()
    settings = StoreSettings.model_validate({})
    engine = connect(settings.database_url, seconds=settings.database_seconds)
    shared = State(settings, engine, BlobStore(settings.blob_dir), Announcements(settings.database_url))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(shared.blobs.remove_abandoned, ABANDONED_SECONDS)
        yield
        await shared.announcements.end()
        shared.engine.dispose()

    app = FastAPI(title="lambdahat", version=openapi.VERSION, description=openapi.DESCRIPTION, lifespan=lifespan)
    app.state.shared = shared
    for resource in (keys, blobs, datasets, models, series, checkpoints, jobs, draws, curves, health, metrics, pages):
        app.include_router(resource.router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestLog)
    app.add_middleware(UnderPath, root_path=settings.root_path)
    return app
