"""Wires the uploader together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain

import anyio
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from sqlalchemy.ext.asyncio import AsyncEngine

from core.connections import make_async_engine
from core.datasets import list_adjudications
from core.migrate import check_database
from core.settings import LogSettings, TracingSettings, read_settings, refuse_open_bind
from core.startup import configure_logging, keep_files_private
from core.tracing import tracing
from core.web.app import NO_TELEMETRY, install_web
from core.web.health import Check
from core.web.server import serve
from uploader.argilla.client import Argilla, Circuit, make_http_client
from uploader.argilla.webhook import Registration
from uploader.dataset import ConcurrencyLimit, DatasetState
from uploader.jobs import DatasetJobs, SharedJobs
from uploader.leadership import Leadership, keep_leading
from uploader.repository import warn_of_undefined
from uploader.runner import running
from uploader.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Make the app; its lifespan runs the jobs."""
    engine = make_async_engine(settings.database, "uploader")
    http = make_http_client(settings.argilla, settings.uploader.argilla_timeout_seconds)
    argilla = Argilla(http, Circuit(settings.uploader.retry_cap_seconds), engine)
    states = _make_states(settings, engine, argilla)
    registration = Registration(argilla, engine, settings.webhook.endpoint, settings.argilla.workspace)
    limiters = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
    jobs = {state.name: DatasetJobs(state, registration, settings, *limiters) for state in states}
    shared = SharedJobs(engine, registration, jobs, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await warn_of_undefined(engine, {*jobs, *settings.datasets})
        async with keep_leading(state.leadership for state in states):
            scheduled = chain.from_iterable(each.schedule() for each in (shared, *jobs.values()))
            async with running(scheduled, settings.uploader.stop_seconds):
                yield
        await http.aclose()
        await engine.dispose()
        await anyio.to_thread.run_sync(tracing.stop)

    app = FastAPIOffline(title="Uploader", lifespan=lifespan, telemetry=NO_TELEMETRY)
    checks: dict[str, Check] = {"database": lambda: check_database(engine), "argilla": argilla.check}
    checks["forgetting"] = shared.check_forgetting
    checks |= {f"dataset {name}": job.check for name, job in jobs.items()}
    install_web(app, checks, settings.access)
    return app


def _make_states(settings: Settings, engine: AsyncEngine, argilla: Argilla) -> list[DatasetState]:
    limit = ConcurrencyLimit(settings.push.connections)
    lease_seconds = settings.uploader.leader_lease_seconds
    uploaded = [name for name, dataset in settings.datasets.items() if dataset.upload]
    workspaces = dict.fromkeys(uploaded, settings.argilla.workspace)
    workspaces |= dict.fromkeys(list_adjudications(settings.datasets), settings.argilla.adjudication_workspace)
    return [
        DatasetState(
            name,
            settings.datasets,
            engine,
            argilla,
            workspace,
            Leadership(engine, name, lease_seconds),
            limit,
            settings.pacing.max_open_records,
        )
        for name, workspace in workspaces.items()
    ]


def main() -> None:
    """Run until SIGTERM or Ctrl-C."""
    keep_files_private()
    configure_logging(read_settings(LogSettings), "uploader")
    tracing.configure(read_settings(TracingSettings), "uploader")
    settings = Settings()
    refuse_open_bind(settings.uploader.host, settings.access)
    serve(create_app(settings), settings.uploader.host, settings.uploader.port)
