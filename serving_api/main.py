"""The serving API: all wiring."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from core.datasets import Datasets
from core.keys import KeyRing
from core.openapi import describe
from core.server import settle
from core.settings import AccessSettings, DatabaseSettings
from core.web import install_web
from serving_api.answer_cache import AnswerCache
from serving_api.answers import Answers
from serving_api.endpoints import make_router
from serving_api.follower import Follower
from serving_api.query_pool import QueryPool
from serving_api.replica import Replica
from serving_api.search_follower import SearchFollower
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings

# A window is applied faster; a build is cut off, and starts anew the next time.
_STOP_SECONDS = 2.0


def create_app(
    serving: ServingSettings,
    replica_settings: ReplicaSettings,
    data: DataSettings,
    database: DatabaseSettings,
    access: AccessSettings,
    datasets: Datasets,
) -> FastAPI:
    """Make the application. Its lifespan opens the replica's file and follows Postgres."""
    replica = Replica(data.replica_path, replica_settings)
    pool = QueryPool(replica, serving.query_threads, serving.query_queue, serving.query_seconds)
    search = SearchFollower(replica, data.search_path)
    key_ring = KeyRing(access.require_api_key)
    follower = Follower(replica, database.libpq_url, replica_settings.poll_seconds, key_ring)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(replica.open)
        follower.start()
        search.start()
        settle(app)
        yield
        await anyio.to_thread.run_sync(search.stop, _STOP_SECONDS)
        await anyio.to_thread.run_sync(follower.stop, _STOP_SECONDS)
        pool.close()
        await anyio.to_thread.run_sync(replica.close)

    async def check_replica() -> None:
        if replica.state is None:
            raise RuntimeError(f"not built yet; Postgres: {follower.error or 'being read'}")

    app = FastAPIOffline(
        title="Serving API",
        description="Labelled texts, from a replica that follows Postgres.",
        version="2.0.0",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.replica = replica
    app.state.answers = Answers(replica, pool, AnswerCache(serving.cache_bytes), search)
    app.state.datasets = datasets
    app.state.key_ring = key_ring
    app.state.follower = follower
    app.state.search = search
    app.include_router(make_router(datasets))
    install_web(app, {"replica": check_replica})
    describe(app, datasets, access.require_api_key)
    return app
