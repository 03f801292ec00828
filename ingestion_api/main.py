"""The ingestion API: takes texts and writes them durably to Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import psycopg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import ClientDisconnect

from core.database import make_async_engine, make_engine
from core.datasets import load_datasets
from core.keys import KeyRing, Scope, select_valid_keys
from core.logs import configure_logging
from core.migrate import check_database
from core.problems import Unavailable
from core.settings import (
    AccessSettings,
    DatabaseSettings,
    DatasetsFileSettings,
    LogSettings,
    read_settings,
    refuse_open_bind,
)
from core.web import install_web, problem_response, serve
from ingestion_api.endpoints import add_endpoints
from ingestion_api.enrichment.fields import prepare
from ingestion_api.intake import Intake
from ingestion_api.settings import IngestionSettings

log = structlog.get_logger()

_KEYS_SECONDS = 5.0


def create_app(
    settings: IngestionSettings,
    database: DatabaseSettings,
    access: AccessSettings,
    datasets_file: DatasetsFileSettings,
) -> FastAPI:
    """Wire the service together."""
    engine = make_async_engine(database, "ingestion_api")
    bulk_engine = make_engine(database, "ingestion_api bulk")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.intake = Intake(database, settings, app.state.datasets)
        keys = asyncio.create_task(_follow_keys(engine, app.state.key_ring))
        yield
        keys.cancel()
        with suppress(asyncio.CancelledError):
            await keys
        await app.state.intake.close()
        await engine.dispose()
        bulk_engine.dispose()

    app = FastAPIOffline(
        title="Ingestion API",
        summary="Takes texts, to be labelled in Argilla.",
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
    )
    app.state.settings = settings
    app.state.datasets = load_datasets(datasets_file.datasets_file)
    prepare(app.state.datasets)
    app.state.engine = engine
    app.state.bulk_engine = bulk_engine
    app.state.bulk_limiter = anyio.CapacityLimiter(settings.bulk_uploads)
    app.state.key_ring = KeyRing(access.require_api_key)
    add_endpoints(app)
    install_web(app, {"database": lambda: check_database(engine)})
    for error in (OperationalError, PoolTimeout, psycopg.OperationalError):
        app.add_exception_handler(error, _on_outage)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


async def _on_outage(_: Request, error: Exception) -> Response:
    log.warning("database.away", error=type(error).__name__)
    return problem_response(Unavailable("The database is away.", code="database_unavailable"))


async def _on_disconnect(request: Request, _: Exception) -> Response:
    log.info("request.cut", path=request.url.path)
    return Response(status_code=499)  # nobody reads it


async def _follow_keys(engine: AsyncEngine, key_ring: KeyRing) -> None:
    """Keep the valid keys in memory up to date, while keys are required."""
    while key_ring.required:
        try:
            async with engine.connect() as connection:
                rows = await connection.execute(select_valid_keys())
                key_ring.replace({hash_: frozenset(map(Scope, scopes)) for hash_, scopes in rows.tuples()})
        except SQLAlchemyError as error:
            log.warning("keys.not_read", error=type(error).__name__)
        await asyncio.sleep(_KEYS_SECONDS)


def main() -> None:
    """Run the service as the environment says."""
    settings, access = read_settings(IngestionSettings), read_settings(AccessSettings)
    configure_logging(read_settings(LogSettings), "ingestion_api")
    refuse_open_bind(settings.host, access)
    app = create_app(settings, read_settings(DatabaseSettings), access, read_settings(DatasetsFileSettings))
    serve(app, settings.host, settings.port)
