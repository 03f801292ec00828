"""The serving API: all wiring."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline

from core.datasets import Datasets, load_datasets
from core.settings import (
    AccessSettings,
    DatabaseSettings,
    DatasetsFileSettings,
    LogSettings,
    TracingSettings,
    read_settings,
    refuse_open_bind,
)
from core.startup import close_folder, configure_logging
from core.tracing import tracing
from core.web.app import NO_TELEMETRY, install_web
from core.web.browsers import PageSettings, add_page
from core.web.health import Check, NotReady
from core.web.keys import KeyRing, KeyWatch
from core.web.negotiation import Compression
from core.web.openapi import describe
from core.web.rate_limits import Places
from core.web.server import follow_parent, run, settle
from serving_api.changes import endpoints as changes_endpoints
from serving_api.changes.service import ChangeNotifier, Changes
from serving_api.dependencies import base_url
from serving_api.exports import endpoints as export_endpoints
from serving_api.exports.export_files import ExportFolder
from serving_api.exports.service import Exports
from serving_api.metrics import (
    DATA_FREE_BYTES,
    DATA_SIZE_BYTES,
    REPLICA_AGE_SECONDS,
    SEARCH_INDEX_BEHIND_SECONDS,
)
from serving_api.models import endpoints as model_endpoints
from serving_api.models.schemas import ScoreRequest
from serving_api.models.service import Models
from serving_api.perspective import endpoints as perspective_endpoints
from serving_api.perspective.endpoints import GoogleErrors
from serving_api.perspective.schemas import AnalyzeCommentRequest, GoogleError, SuggestCommentScoreRequest
from serving_api.perspective.service import Perspective, PerspectiveSettings
from serving_api.replica.file import release_memory
from serving_api.replica.follower import Follower
from serving_api.replica.query_pool import AnswerCache, Answers, QueryPool
from serving_api.replica.replica import Replica
from serving_api.search.follower import SearchFollower
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from serving_api.snapshots import endpoints as snapshot_endpoints
from serving_api.snapshots.parameters import SnapshotCreate, SnapshotRewrite
from serving_api.snapshots.service import COMPARED_AT_ONCE, Snapshots
from serving_api.snapshots.storage import STORAGE_SECONDS
from serving_api.statistics import endpoints as statistics_endpoints
from serving_api.texts import endpoints as text_endpoints
from serving_api.texts.service import Hints, Texts
from serving_api.viewer import endpoints as viewer_endpoints
from serving_api.viewer.service import Viewer
from serving_api.watchdog import Watchdog

# Applying a window is faster. A build is interrupted, and starts again after the next start.
_STOP_SECONDS = 2.0
_STATE_SECONDS = 1.0
# Queries, exports and builds leave freed memory behind.
_RELEASE_SECONDS = 60.0

# Messages that endpoints read, or translate, without FastAPI.
_BODIES = (
    *(SnapshotCreate, SnapshotRewrite, ScoreRequest),
    *(AnalyzeCommentRequest, SuggestCommentScoreRequest, GoogleError),
)

_DASHBOARD = Path(__file__).parent / "pages" / "static"


class Parts:
    """The parts of the application. `app.state` has each of them under its name here."""

    def __init__(
        self,
        serving: ServingSettings,
        replica_settings: ReplicaSettings,
        data: DataSettings,
        database: DatabaseSettings,
        access: AccessSettings,
        datasets: Datasets,
    ) -> None:
        self.serving_settings, self.datasets = serving, datasets
        self._share = share = access.client_share
        self.key_ring = KeyRing(access.require_api_key, access.limit)
        self.watchdog = watchdog = Watchdog(serving.stuck_seconds)
        self.replica = replica = Replica(data.replica_path, replica_settings, serving.processes)
        self.follower = Follower(replica, database.libpq_url, replica_settings, self.key_ring)
        self.search, hints = SearchFollower(replica), Hints()
        self.query_pool = self._make_pool("queries")
        # If the storage of snapshots hangs, only requests for snapshots wait.
        self.files_pool = self._make_pool("queries of snapshots", STORAGE_SECONDS)
        cache = AnswerCache(serving.cache_bytes)
        self.answers = Answers(replica, self.query_pool, cache)
        self.texts = Texts(self.answers, self.query_pool, hints, self.search)
        waiting = Places("requests that wait for changes", serving.changes_clients, share)
        self.notifier = ChangeNotifier(self.query_pool, waiting)
        replica.on_change(lambda _: self.notifier.notify())
        readers = max(1, serving.query_threads // 2)
        self.changes = Changes(replica, self.query_pool, cache, self.notifier, readers)
        self.exports = self._make_exports(data)
        comparisons = watchdog.crew("comparisons of snapshots", COMPARED_AT_ONCE, STORAGE_SECONDS)
        self.snapshots = Snapshots(
            replica, data, datasets, share=share, crew=comparisons, diff_seconds=serving.diff_seconds
        )
        self.viewer = Viewer(
            self.files_pool, self.answers, hints, self.search, self.snapshots, datasets, replica_settings
        )
        self.models = Models(replica, serving, data, datasets, share)
        self.perspective = Perspective(read_settings(PerspectiveSettings), datasets, self.models)

    def _make_pool(self, kind: str, more_seconds: float = 0) -> QueryPool:
        serving = self.serving_settings
        threads, queue, seconds = serving.query_threads, serving.query_queue, serving.query_seconds
        crew = self.watchdog.crew(kind, threads, more_seconds)
        return QueryPool(self.replica, threads, queue, seconds, share=self._share, crew=crew)

    def _make_exports(self, data: DataSettings) -> Exports:
        serving = self.serving_settings
        return Exports(
            self.replica,
            Places("exports", serving.exports, self._share),
            self.watchdog.crew("exports", serving.exports),
            ExportFolder(data.replica_path.parent / "exports", serving.export_bytes),
            idle_seconds=serving.export_idle_seconds,
            write_seconds=serving.export_chunk_seconds,
        )


def create_app(
    serving: ServingSettings,
    replica_settings: ReplicaSettings,
    data: DataSettings,
    database: DatabaseSettings,
    access: AccessSettings,
    datasets: Datasets,
) -> FastAPI:
    """Make the application. Its lifespan opens the replica's file and follows Postgres."""
    parts = Parts(serving, replica_settings, data, database, access, datasets)
    app = FastAPIOffline(
        title="Serving API",
        description="Labelled texts, from a replica that follows Postgres.",
        version="2.0.0",
        lifespan=lambda app: _running(app, parts, data),
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        generate_unique_id_function=lambda route: route.name,
    )
    for name, part in vars(parts).items():
        setattr(app.state, name, part)
    _add_paths(app, datasets, access)
    # The last one added sees a request first.
    app.add_middleware(KeyWatch, key_ring=parts.key_ring, seconds=serving.key_check_seconds)
    app.add_middleware(text_endpoints.Shortcut, answers=parts.answers, key_ring=parts.key_ring)
    app.add_middleware(Compression)
    checks: dict[str, Check] = {
        "replica": lambda: _check_replica(parts.replica, parts.follower),
        "queries": lambda: _check_queries(parts.watchdog),
    }
    install_web(app, checks, access)
    app.add_middleware(GoogleErrors)
    describe(app, datasets, access.require_api_key, *_BODIES)
    return app


def _add_paths(app: FastAPI, datasets: Datasets, access: AccessSettings) -> None:
    for router in (
        text_endpoints.router,
        text_endpoints.make_label_router(datasets),
        changes_endpoints.router,
        statistics_endpoints.router,
        export_endpoints.router,
        snapshot_endpoints.router,
        snapshot_endpoints.writing_router,
        snapshot_endpoints.admin_router,
        snapshot_endpoints.forgotten_router,
        viewer_endpoints.router,
        model_endpoints.router,
        perspective_endpoints.router,
        perspective_endpoints.open_router,
    ):
        app.include_router(router)
    _add_dashboard(app, datasets, read_settings(PageSettings), key_is_required=access.require_api_key)


def _add_dashboard(app: FastAPI, datasets: Datasets, settings: PageSettings, *, key_is_required: bool) -> None:
    """Add the page at `GET /`, with the addresses that it links to."""

    def links(request: Request) -> dict[str, Any]:
        base = base_url(request)
        main = ("docs", "texts", "disputed", "changes", "stats", "snapshots", "metrics", "readyz")
        exports = {kind: f"{base}/export.{kind}" for kind in ("parquet", "arrow", "ndjson", "csv")}
        return {
            **{name: f"{base}/{name}" for name in main},
            "openapi": f"{base}/openapi.json",
            "agreement": f"{base}/stats/agreement",
            "annotators": f"{base}/stats/annotators",
            "exports": exports,
            "ingestion": settings.ingestion_url(request),
            "argilla": settings.argilla_url(request),
            "key_required": key_is_required,
            "scopes": app.state.key_ring.scopes_of(request.headers.get("authorization")),
            "datasets": {
                name: {"labels": list(dataset.labels), "answers_wanted": dataset.answers_wanted}
                for name, dataset in datasets.items()
            },
        }

    add_page(app, _DASHBOARD, links, settings.ingestion_url)


@asynccontextmanager
async def _running(app: FastAPI, parts: Parts, data: DataSettings) -> AsyncIterator[None]:
    """Run the background work: the follower, the search index, metrics."""
    searches = parts.serving_settings.search_index
    parts.watchdog.start()
    await anyio.to_thread.run_sync(parts.replica.open)
    await anyio.to_thread.run_sync(parts.exports.open)
    parts.follower.start()
    tasks = [
        asyncio.create_task(_show_state(parts.replica, parts.search if searches else None, data)),
        asyncio.create_task(follow_parent()),
        asyncio.create_task(_release_memory()),
        asyncio.create_task(parts.models.follow()),
    ]
    settle(app)
    if searches:
        parts.search.start()
    async with parts.notifier.running():
        yield
    await parts.exports.close()
    await anyio.to_thread.run_sync(parts.search.stop, _STOP_SECONDS)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await anyio.to_thread.run_sync(parts.follower.stop, _STOP_SECONDS)
    await parts.perspective.ingestion.close()
    parts.models.close()
    parts.query_pool.close()
    await anyio.to_thread.run_sync(parts.files_pool.close)
    parts.viewer.close()
    await anyio.to_thread.run_sync(parts.replica.close)
    await anyio.to_thread.run_sync(parts.snapshots.close)
    parts.watchdog.stop()
    await anyio.to_thread.run_sync(tracing.stop)


async def _check_replica(replica: Replica, follower: Follower) -> str | None:
    if replica.state is None:
        raise NotReady(f"not built yet; Postgres: {follower.error or 'being read'}")
    if follower.rebuilding is None:
        return None
    return f"is being rebuilt: {follower.rebuilding}; the old one serves on; Postgres: {follower.error or 'fine'}"


async def _check_queries(watchdog: Watchdog) -> str | None:
    if stuck := watchdog.stuck():
        raise NotReady(stuck)
    return None


async def _show_state(replica: Replica, search: SearchFollower | None, data: DataSettings) -> None:
    """Keep the gauges current, even while Postgres hangs: with several processes they are plain values."""
    while True:
        REPLICA_AGE_SECONDS.set(replica.age_seconds)
        if search is not None:
            SEARCH_INDEX_BEHIND_SECONDS.set(search.behind_seconds)
        with suppress(OSError):  # the folder is missing; requests that need it report that
            disk = shutil.disk_usage(data.data_dir)
            DATA_FREE_BYTES.set(disk.free)
            DATA_SIZE_BYTES.set(disk.total)
        await asyncio.sleep(_STATE_SECONDS)


async def _release_memory() -> None:
    while True:
        await asyncio.sleep(_RELEASE_SECONDS)
        await anyio.to_thread.run_sync(release_memory)


def make_app() -> FastAPI:
    """Make the application from the environment; called in each process."""
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
    """Run the service with the settings of the environment."""
    configure_logging(read_settings(LogSettings), "serving_api")
    settings = read_settings(ServingSettings)
    refuse_open_bind(settings.host, read_settings(AccessSettings))
    for folder in ("serving", "snapshots"):
        close_folder(read_settings(DataSettings).data_dir / folder)
    run(make_app, settings.host, settings.port, settings.processes)
