"""The serving API: all wiring."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from core.datasets import Datasets, load_datasets
from core.logs import configure_logging
from core.os_process import close_folder
from core.settings import (
    AccessSettings,
    DatabaseSettings,
    DatasetsFileSettings,
    LogSettings,
    TracingSettings,
    read_settings,
    refuse_open_bind,
)
from core.tracing.tracing import tracing
from core.web.app import NO_TELEMETRY, install_web
from core.web.health import NotReady
from core.web.keys import KeyRing
from core.web.openapi import describe
from core.web.rate_limits import Places
from core.web.server import follow_parent, run, settle
from core.web.static_pages import PageSettings
from serving_api.changes.notifier import News
from serving_api.changes.service import Changes
from serving_api.exports.endpoints import make_export_router
from serving_api.exports.service import Exports
from serving_api.key_watch import KeyWatch
from serving_api.metrics import (
    DATA_FREE_BYTES,
    DATA_SIZE_BYTES,
    REPLICA_AGE_SECONDS,
    SEARCH_INDEX_BEHIND_SECONDS,
)
from serving_api.pages.endpoints import add_dashboard
from serving_api.replica.follower import Follower
from serving_api.replica.query_pool import QueryPool
from serving_api.replica.replica import Replica
from serving_api.search.follower import Behind, SearchFollower
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from serving_api.snapshots.endpoints import make_forgotten_router, make_snapshot_admin_router, make_snapshot_router
from serving_api.snapshots.schemas import SnapshotCreate, SnapshotRewrite
from serving_api.snapshots.service import COMPARED_AT_ONCE, Snapshots
from serving_api.snapshots.storage import STORAGE_SECONDS
from serving_api.texts.endpoints import make_router
from serving_api.texts.service import AnswerCache, Answers
from serving_api.texts.shortcut import Shortcut
from serving_api.viewer.endpoints import make_viewer_router
from serving_api.viewer.service import Viewer
from serving_api.watchdog import Watchdog

# A window is applied faster; a build is cut off, and starts anew the next time.
_STOP_SECONDS = 2.0
_STATE_SECONDS = 1.0


def create_app(
    serving: ServingSettings,
    replica_settings: ReplicaSettings,
    data: DataSettings,
    database: DatabaseSettings,
    access: AccessSettings,
    datasets: Datasets,
) -> FastAPI:
    """Make the application. Its lifespan opens the replica's file and follows Postgres."""
    replica = Replica(data.replica_path, replica_settings, serving.processes)
    watchdog, share = Watchdog(serving.stuck_seconds), access.client_share
    threads, queue, seconds = serving.query_threads, serving.query_queue, serving.query_seconds
    pool = QueryPool(replica, threads, queue, seconds, share=share, crew=watchdog.crew("queries", threads))
    cache = AnswerCache(serving.cache_bytes)
    news = News(pool, Places("requests that wait for changes", serving.changes_clients, share))
    replica.on_change(lambda _: news.ring())
    search = SearchFollower(replica)
    snapshots = Snapshots(
        replica,
        data,
        datasets,
        share=share,
        crew=watchdog.crew("comparisons of snapshots", COMPARED_AT_ONCE, STORAGE_SECONDS),
        diff_seconds=serving.diff_seconds,
    )
    answers = Answers(replica, pool, cache, search)
    # Where the storage of snapshots hangs, what waits for it is in nobody else's way.
    files_crew = watchdog.crew("queries of snapshots", threads, STORAGE_SECONDS)
    files_pool = QueryPool(replica, threads, queue, seconds, share=share, crew=files_crew)
    viewer = Viewer(files_pool, answers, search, snapshots, datasets, replica_settings)
    key_ring = KeyRing(access.require_api_key, access.limit)
    follower = Follower(
        replica, database.libpq_url, replica_settings.poll_seconds, key_ring, replica_settings.forget_seconds
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watchdog.start()
        await anyio.to_thread.run_sync(replica.open)
        follower.start()
        tasks = [
            asyncio.create_task(_show_state(replica, search if serving.search_index else None, data)),
            asyncio.create_task(follow_parent()),
        ]
        settle(app)
        if serving.search_index:
            search.start()
        async with news.running():
            yield
        await anyio.to_thread.run_sync(search.stop, _STOP_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await anyio.to_thread.run_sync(follower.stop, _STOP_SECONDS)
        pool.close()
        await anyio.to_thread.run_sync(files_pool.close)
        viewer.close()
        await anyio.to_thread.run_sync(replica.close)
        await anyio.to_thread.run_sync(snapshots.close)
        watchdog.stop()
        await anyio.to_thread.run_sync(tracing.stop)

    async def check_replica() -> str | None:
        if replica.state is None:
            raise NotReady(f"not built yet; Postgres: {follower.error or 'being read'}")
        if follower.rebuilding is None:
            return None
        return (
            f"is being rebuilt: {follower.rebuilding}; the old one serves on; Postgres: {follower.error or 'fine'}"
        )

    async def check_queries() -> str | None:
        if stuck := watchdog.stuck():
            raise NotReady(stuck)
        return None

    app = FastAPIOffline(
        title="Serving API",
        description="Labelled texts, from a replica that follows Postgres.",
        version="2.0.0",
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.replica = replica
    app.state.query_pool = pool
    app.state.answers = answers
    app.state.exports = Exports(
        replica,
        Places("exports", serving.exports, share),
        watchdog.crew("exports", serving.exports),
        idle_seconds=serving.export_idle_seconds,
        chunk_seconds=serving.export_chunk_seconds,
    )
    app.state.snapshots = snapshots
    app.state.viewer = viewer
    app.state.changes = Changes(replica, pool, cache, news, max(1, serving.query_threads // 2))
    app.state.serving_settings = serving
    app.state.datasets = datasets
    app.state.key_ring = key_ring
    app.state.follower = follower
    app.state.search = search
    app.include_router(make_router(datasets))
    app.include_router(make_export_router())
    app.include_router(make_snapshot_router())
    app.include_router(make_snapshot_admin_router())
    app.include_router(make_forgotten_router())
    app.include_router(make_viewer_router())
    add_dashboard(app, datasets, read_settings(PageSettings), key_is_required=access.require_api_key)
    app.add_middleware(KeyWatch, key_ring=key_ring, seconds=serving.key_check_seconds)
    app.add_middleware(Shortcut, replica=replica, answers=answers, key_ring=key_ring)
    install_web(app, {"replica": check_replica, "queries": check_queries}, access)
    describe(app, datasets, access.require_api_key, SnapshotCreate, SnapshotRewrite)
    return app


async def _show_state(replica: Replica, search: SearchFollower | None, data: DataSettings) -> None:
    """Keep the metrics up to date by themselves, also while Postgres hangs; what processes share are values."""
    behind = Behind()
    while True:
        REPLICA_AGE_SECONDS.set(replica.age_seconds)
        if search is not None and replica.state is not None:
            SEARCH_INDEX_BEHIND_SECONDS.set(behind.seconds(search.version or 0, replica.state.version))
        with suppress(OSError):  # the folder was taken away; what needs it says so
            disk = shutil.disk_usage(data.data_dir)
            DATA_FREE_BYTES.set(disk.free)
            DATA_SIZE_BYTES.set(disk.total)
        await asyncio.sleep(_STATE_SECONDS)


def make_app() -> FastAPI:
    """Make the service as the environment says; called in each process."""
    configure_logging(read_settings(LogSettings), "serving_api")
    tracing.configure(read_settings(TracingSettings), "serving_api")
    return create_app(
        read_settings(ServingSettings),
        read_settings(ReplicaSettings),
        read_settings(DataSettings),
        read_settings(DatabaseSettings),
        read_settings(AccessSettings),
        load_datasets(read_settings(DatasetsFileSettings).datasets_file),
    )


def main() -> None:
    """Run the service as the environment says."""
    configure_logging(read_settings(LogSettings), "serving_api")
    settings = read_settings(ServingSettings)
    refuse_open_bind(settings.host, read_settings(AccessSettings))
    for folder in ("serving", "snapshots"):
        close_folder(read_settings(DataSettings).data_dir / folder)
    run(make_app, settings.host, settings.port, settings.processes)
