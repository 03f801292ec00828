"""The ingestion API: takes texts and stores them in Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import psycopg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import ClientDisconnect

from core.connections import make_async_engine
from core.datasets import load_datasets
from core.migrate import check_database
from core.settings import (
    AccessSettings,
    DatabaseSettings,
    DatasetsFileSettings,
    ForgetSettings,
    LogSettings,
    TracingSettings,
    read_settings,
    refuse_open_bind,
)
from core.startup import configure_logging
from core.tracing import tracing
from core.web.app import NO_TELEMETRY, install_web
from core.web.browsers import PageSettings
from core.web.keys import KeyRing, ValidKey, select_valid_keys
from core.web.openapi import describe
from core.web.problems import Unavailable, problem_response
from core.web.rate_limits import Places
from core.web.server import follow_parent, run, settle
from ingestion_api.bulk.endpoints import router as bulk
from ingestion_api.dependencies import BodyCut
from ingestion_api.enrichment.enrich import prepare
from ingestion_api.imports.endpoints import router as imports
from ingestion_api.imports.worker import importing
from ingestion_api.pages.endpoints import add_upload_page
from ingestion_api.settings import IngestionSettings
from ingestion_api.texts.endpoints import add_create_text
from ingestion_api.texts.endpoints import router as texts
from ingestion_api.texts.intake import Intake
from ingestion_api.texts.schemas import TextCreate
from ingestion_api.webhooks.endpoints import WebhookSecrets, make_turns
from ingestion_api.webhooks.endpoints import router as webhooks

log = structlog.get_logger()

_KEYS_SECONDS = 5.0


def create_app(
    settings: IngestionSettings,
    database: DatabaseSettings,
    access: AccessSettings,
    datasets_file: DatasetsFileSettings,
    forget: ForgetSettings | None = None,
) -> FastAPI:
    """Wire the service together."""
    engine = make_async_engine(database, "ingestion_api")
    app = FastAPIOffline(
        title="Ingestion API",
        summary="Takes texts, to be labelled in Argilla.",
        version="2.0.0",
        lifespan=_lifespan,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.database = database
    app.state.access = access
    app.state.forget = forget or ForgetSettings()
    app.state.engine = engine
    app.state.datasets = load_datasets(datasets_file.datasets_file)
    app.state.bulk_places = Places("bulk uploads", settings.bulk_uploads, access.client_share, code="bulk_busy")
    app.state.bulk_limiter = anyio.CapacityLimiter(settings.bulk_uploads)
    app.state.key_ring = KeyRing(access.require_api_key, access.limit)
    app.state.webhook_secrets = WebhookSecrets(engine)
    app.state.webhook_turns = make_turns()
    prepare(app.state.datasets)
    _add_endpoints(app)
    add_upload_page(app, app.state.datasets, read_settings(PageSettings), key_is_required=access.require_api_key)
    install_web(app, {"database": lambda: check_database(engine)}, access)
    describe(
        app, app.state.datasets, access.require_api_key, TextCreate, import_max_bytes=settings.import_max_bytes
    )
    _add_handlers(app)
    return app


def _add_endpoints(app: FastAPI) -> None:
    add_create_text(app)
    app.include_router(texts)
    app.include_router(bulk)
    app.include_router(imports)
    app.include_router(webhooks)


def _add_handlers(app: FastAPI) -> None:
    for error in (OperationalError, PoolTimeout, psycopg.OperationalError):
        app.add_exception_handler(error, _on_outage)
    for cut in (ClientDisconnect, BodyCut):
        app.add_exception_handler(cut, _on_disconnect)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    state.intake = Intake(state.database, state.settings, state.datasets, state.access.client_share)
    tasks = [
        asyncio.create_task(_follow_keys(state.engine, state.key_ring)),
        asyncio.create_task(follow_parent()),
    ]
    settle(app)
    async with importing(state.engine, state.database, state.settings, state.datasets) as state.import_completed:
        yield
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await state.intake.close()
    await state.engine.dispose()
    await anyio.to_thread.run_sync(tracing.stop)


async def _on_outage(_: Request, error: Exception) -> Response:
    log.warning("database.away", error=type(error).__name__)
    return problem_response(Unavailable("The database is away.", code="database_unavailable"))


async def _on_disconnect(request: Request, _: Exception) -> Response:
    log.info("request.cut", path=request.url.path)
    return Response(status_code=499)  # for the metrics: the client is gone


async def _follow_keys(engine: AsyncEngine, key_ring: KeyRing) -> None:
    """Refresh the copy of the valid keys in memory, while keys are required."""
    while key_ring.required:
        try:
            async with engine.connect() as connection:
                rows = await connection.execute(select_valid_keys())
                key_ring.replace(map(ValidKey.from_row, rows))
        except SQLAlchemyError as error:
            log.warning("keys.not_read", error=type(error).__name__)
        await asyncio.sleep(_KEYS_SECONDS)


def make_app() -> FastAPI:
    """Make the service as the environment says; called in each process."""
    configure_logging(read_settings(LogSettings), "ingestion_api")
    tracing.configure(read_settings(TracingSettings), "ingestion_api")
    return create_app(
        read_settings(IngestionSettings),
        read_settings(DatabaseSettings),
        read_settings(AccessSettings),
        read_settings(DatasetsFileSettings),
        read_settings(ForgetSettings),
    )


def main() -> None:
    """Run the service as the environment says."""
    settings = read_settings(IngestionSettings)
    refuse_open_bind(settings.host, read_settings(AccessSettings))
    run(make_app, settings.host, settings.port, settings.processes)
