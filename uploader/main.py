"""Wires the uploader together."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from sqlalchemy.ext.asyncio import AsyncEngine

from core.connections import make_async_engine
from core.datasets import Datasets, list_adjudications, load_datasets
from core.migrate import check_database
from core.settings import (
    AccessSettings,
    ArgillaSettings,
    DatabaseSettings,
    DatasetsFileSettings,
    ForgetSettings,
    LogSettings,
    TracingSettings,
    read_settings,
    refuse_open_bind,
)
from core.startup import configure_logging, keep_files_private
from core.tracing import tracing
from core.web.app import NO_TELEMETRY, install_web
from core.web.health import Check
from core.web.server import serve
from uploader.argilla.circuit import Circuit
from uploader.argilla.client import Argilla, make_http_client
from uploader.argilla.webhook import Registration, WebhookHealth
from uploader.dataset import ConcurrencyLimit, DatasetState
from uploader.forgetting.service import FilesWatch
from uploader.jobs import DatabaseJobs, DatasetJobs, Schedule, WebhookJobs
from uploader.leadership import Leadership, keep_leading
from uploader.model.model_job import ModelJob, ModelRemover
from uploader.model.model_process import Workplace
from uploader.pull.collector import Collector
from uploader.pull.sweep import Sweeper
from uploader.repository import warn_of_undefined
from uploader.rules.estimation import Estimator
from uploader.settings import (
    ForgottenFilesSettings,
    ModelSettings,
    ModelStorageSettings,
    PacingSettings,
    PushSettings,
    RuleSettings,
    SweepSettings,
    UploaderSettings,
    WebhookSettings,
)

_TELL_SECONDS = 1
_REPAIR_SECONDS = 5
_MEASURE_SECONDS = 5
_ESTIMATE_SECONDS = 5
_MODEL_SECONDS = 5
_FORGET_SECONDS = 2
_DATABASE_SECONDS = 60
_FILES_SECONDS = 10
# Jobs that go on until they fail begin again after so long, and after the pause of their runner.
_RESTART_SECONDS = 1


@dataclass(frozen=True)
class Settings:
    """Everything that can be set."""

    uploader: UploaderSettings
    push: PushSettings
    pacing: PacingSettings
    sweep: SweepSettings
    webhook: WebhookSettings
    rule: RuleSettings
    database: DatabaseSettings
    argilla: ArgillaSettings
    datasets: Datasets
    access: AccessSettings | None = None
    forget: ForgetSettings = field(default_factory=ForgetSettings)
    serving: ForgottenFilesSettings = field(default_factory=ForgottenFilesSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    models: ModelStorageSettings = field(default_factory=ModelStorageSettings)


def read_all_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SystemExit: names each missing or wrong setting.
    """
    return Settings(
        read_settings(UploaderSettings),
        read_settings(PushSettings),
        read_settings(PacingSettings),
        read_settings(SweepSettings),
        read_settings(WebhookSettings),
        read_settings(RuleSettings),
        read_settings(DatabaseSettings),
        read_settings(ArgillaSettings),
        load_datasets(read_settings(DatasetsFileSettings).datasets_file),
        read_settings(AccessSettings),
        read_settings(ForgetSettings),
        read_settings(ForgottenFilesSettings),
        read_settings(ModelSettings),
        read_settings(ModelStorageSettings),
    )


def create_app(settings: Settings) -> FastAPI:
    """Make the app; its lifespan runs the jobs."""
    engine = make_async_engine(settings.database, "uploader")
    http = make_http_client(settings.argilla, settings.uploader.argilla_timeout_seconds)
    argilla = Argilla(http, Circuit(settings.uploader.retry_cap_seconds), engine)
    states = _make_states(settings, engine, argilla)
    registration = Registration(argilla, engine, settings.webhook.endpoint, settings.argilla.workspace)
    limiters = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
    jobs = {state.name: _make_jobs(state, registration, *limiters, settings) for state in states}
    webhook_jobs = WebhookJobs(
        registration,
        settings.webhook.check_seconds,
        settings.database.libpq_url,
        jobs,
        settings.uploader.retry_cap_seconds,
    )
    files = FilesWatch(engine, settings.serving)
    database_jobs = DatabaseJobs(engine, files, settings.uploader.retry_cap_seconds, settings.forget.alert_seconds)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await warn_of_undefined(engine, {*jobs, *settings.datasets})
        async with keep_leading(state.leadership for state in states):
            schedule = _make_schedule(jobs.values(), webhook_jobs, settings)
            schedule.add(database_jobs.measure, _DATABASE_SECONDS)
            schedule.add(database_jobs.watch_forgetting, _MEASURE_SECONDS)
            schedule.add(database_jobs.watch_files, _FILES_SECONDS)
            schedule.start()
            yield
            await schedule.stop(settings.uploader.stop_seconds)
        await http.aclose()
        await engine.dispose()
        await anyio.to_thread.run_sync(tracing.stop)

    app = FastAPIOffline(title="Uploader", lifespan=lifespan, telemetry=NO_TELEMETRY)
    checks: dict[str, Check] = {"database": lambda: check_database(engine), "argilla": argilla.check}
    checks["forgetting"] = database_jobs.check_forgetting
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


def _make_jobs(
    state: DatasetState,
    registration: Registration,
    rules: anyio.CapacityLimiter,
    models: anyio.CapacityLimiter,
    settings: Settings,
) -> DatasetJobs:
    collector = Collector(state.argilla, state.engine, state.name, state.datasets)
    health = WebhookHealth(settings.webhook.grace_seconds)
    sweeper = Sweeper(state, collector, settings.sweep, registration, health)
    estimator = Estimator(state, settings.rule, settings.database, rules)
    # As long as a call may take that a claim allows: no upload begins later, and none is under way longer.
    watch_seconds = settings.uploader.argilla_timeout_seconds + settings.push.lease_seconds
    return DatasetJobs(
        state,
        settings.push,
        sweeper,
        collector,
        estimator,
        _make_model_job(state, models, settings),
        settings.uploader.retry_cap_seconds,
        watch_seconds,
    )


def _make_model_job(
    state: DatasetState, limiter: anyio.CapacityLimiter, settings: Settings
) -> ModelJob | ModelRemover:
    if not state.definition.model.enabled:
        return ModelRemover(state)
    place = Workplace(
        state.name,
        state.definition,
        settings.database,
        settings.models.address,
        settings.model.memory_bytes,
        settings.model.max_texts,
    )
    return ModelJob(state, place, settings.model, limiter)


def _make_schedule(all_jobs: Iterable[DatasetJobs], webhook_jobs: WebhookJobs, settings: Settings) -> Schedule:
    schedule = Schedule()
    schedule.add(webhook_jobs.renew, _RESTART_SECONDS)
    schedule.add(webhook_jobs.listen, _RESTART_SECONDS)
    for jobs in all_jobs:
        schedule.add(jobs.push, settings.push.interval_seconds)
        schedule.add(jobs.pull, _RESTART_SECONDS)
        schedule.add(jobs.sweep, settings.sweep.sweep_interval_seconds)
        schedule.add(jobs.repair, _REPAIR_SECONDS)
        schedule.add(jobs.estimate, _ESTIMATE_SECONDS)
        schedule.add(jobs.keep_model, _MODEL_SECONDS)
        schedule.add(jobs.forget, _FORGET_SECONDS)
        schedule.add(jobs.tell, _TELL_SECONDS)
        schedule.add(jobs.measure, _MEASURE_SECONDS)
    return schedule


def main() -> None:
    """Run until SIGTERM or Ctrl-C."""
    keep_files_private()
    configure_logging(read_settings(LogSettings), "uploader")
    tracing.configure(read_settings(TracingSettings), "uploader")
    settings = read_all_settings()
    refuse_open_bind(settings.uploader.host, read_settings(AccessSettings))
    serve(create_app(settings), settings.uploader.host, settings.uploader.port)
