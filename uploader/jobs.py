"""The jobs of the uploader: what runs, and how often."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

import anyio
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from core.forgetting.repository import UNFINISHED
from core.forgetting.service import explain_unfinished
from core.web.health import NotReady
from uploader import metrics, repository
from uploader.argilla.webhook import Registration, WebhookHealth
from uploader.dataset import DatasetState
from uploader.forgetting import FilesWatch, Forgetter
from uploader.model.model_job import make_model_job
from uploader.pull.collector import Collector, follow_refresh_requests, listen
from uploader.pull.repair import repair_losses
from uploader.pull.sweep import Sweeper
from uploader.push.backlog import upload_backlog
from uploader.push.claiming import QueueStart
from uploader.rules.estimation import Estimator
from uploader.runner import Backoff, Job, JobAlert, JobRunner, wait_for_any
from uploader.settings import Settings

# A job gets an event that is set when the uploader stops, and a function to call after each step of a long run.
OnStep = Callable[[], None]
Work = Callable[[asyncio.Event, OnStep], Awaitable[None]]
Works = dict[str, tuple[float, Work]]  # by the job's name: the seconds from one run to the next, and the work

_TELL_SECONDS = 1
_REPAIR_SECONDS = 5
_MEASURE_SECONDS = 5
_ESTIMATE_SECONDS = 5
_MODEL_SECONDS = 5
_FORGET_SECONDS = 2
_DATABASE_SECONDS = 60
_FILES_SECONDS = 10
# Jobs that go on until they fail begin again after this time, and after the pause of their runner.
_RESTART_SECONDS = 1
# A process that does not lead may have to take over soon.
_STAND_BY_SECONDS = 1.0


class Jobs:
    """Some jobs, each with its runner. During an outage they pause, and raise nothing."""

    def __init__(self, dataset: str, works: Works, retry_cap_seconds: float) -> None:
        self._works = works
        self._runners = {job: JobRunner(dataset, job, Backoff(retry_cap_seconds)) for job in works}

    async def run(self, job: str, stopping: asyncio.Event) -> None:
        """Run a job once, unless it pauses."""
        runner, (_, work) = self._runners[job], self._works[job]
        await runner.run(lambda: work(stopping, runner.go_on))

    def schedule(self) -> Iterator[tuple[float, Job]]:
        """Yield the jobs for `running`, each with the seconds from one run to the next."""
        for job, (seconds, _) in self._works.items():
            yield seconds, partial(self.run, job)


class DatasetJobs(Jobs):
    """The jobs of one dataset. All but `measure` and `tell` run only while this process leads the dataset."""

    def __init__(
        self,
        state: DatasetState,
        registration: Registration,
        settings: Settings,
        rules: anyio.CapacityLimiter,
        models: anyio.CapacityLimiter,
    ) -> None:
        """`rules` and `models` limit the processes that estimate and train, all datasets together."""
        self.wake = asyncio.Event()  # set when a text is noted to be read again
        self._state = state
        self._push_settings = settings.push
        self._queue_start = QueueStart()
        self._told: dict[str, JobAlert | None] = {}
        collector = Collector(state)
        health = WebhookHealth(settings.webhook.grace_seconds)
        # As long as a call may take that a claim allows: no upload begins later, and none is under way longer.
        forgetter = Forgetter(state, settings.uploader.argilla_timeout_seconds + settings.push.lease_seconds)
        led: Works = {
            "push": (settings.push.interval_seconds, self._push),
            "pull": (_RESTART_SECONDS, partial(follow_refresh_requests, collector, self.wake)),
            "sweep": (
                settings.sweep.sweep_interval_seconds,
                Sweeper(collector, settings.sweep, registration, health).run,
            ),
            "heal": (_REPAIR_SECONDS, partial(repair_losses, collector)),
            "rule": (_ESTIMATE_SECONDS, Estimator(state, settings.rule, settings.database, rules).run),
            "model": (_MODEL_SECONDS, make_model_job(state, settings, models).run),
            "forget": (_FORGET_SECONDS, lambda stopping, _on_step: forgetter.run(stopping)),
        }
        self._led = led.keys()
        watching: Works = {"tell": (_TELL_SECONDS, self._tell), "measure": (_MEASURE_SECONDS, self._measure)}
        super().__init__(state.name, led | watching, settings.uploader.retry_cap_seconds)

    @property
    def leads(self) -> bool:
        """Whether this process leads the work on the dataset."""
        return self._state.leadership.leads

    async def run(self, job: str, stopping: asyncio.Event) -> None:
        """Run a job once, unless it pauses or is another uploader's."""
        if job in self._led and not self.leads:
            self._runners[job].stand_by()
        else:
            await super().run(job, stopping)

    async def check(self) -> None:
        """Check that the dataset's jobs are not blocked; standing by is fine.

        Raises:
            NotReady: a job is blocked; the message says why.
        """
        reasons = (self._runners[job].reason for job in self._led)
        reason = next((one for one in reasons if one is not None), None)
        if reason is None and not self._state.leadership.is_known:
            reason = "it is not known yet who leads"
        if reason is None and self.leads and self._state.prepared is None:
            reason = "not prepared yet"
        if reason is not None:
            raise NotReady(reason)

    async def _push(self, stopping: asyncio.Event, _on_step: OnStep) -> None:
        runner = self._runners["push"]
        await upload_backlog(self._state, self._push_settings, runner, stopping, self._queue_start)

    async def _tell(self, _stopping: asyncio.Event, _on_step: OnStep) -> None:
        """Store the alerts: jobs that are blocked until an operator acts."""
        if not self.leads:
            self._told = {}
            return
        alerts = {job: self._runners[job].alert for job in self._led if self._runners[job].has_run}
        if self._state.prepared is not None:
            alerts["settings"] = self._state.settings_alert
        if alerts != self._told:
            async with self._state.engine.begin() as connection:
                await repository.store_alerts(connection, self._state.name, alerts)
            self._told = alerts

    async def _measure(self, _stopping: asyncio.Event, _on_step: OnStep) -> None:
        """Set the gauges of the backlog, of open records and of refresh requests."""
        async with self._state.engine.connect() as connection:
            backlog = await repository.measure_backlog(connection, self._state.name)
        for gauge, value in zip(metrics.BACKLOG, backlog, strict=True):
            gauge.labels(self._state.name).set(value)


class SharedJobs(Jobs):
    """The jobs that concern all datasets. `webhook` and `listen` run until the uploader stops."""

    def __init__(
        self,
        engine: AsyncEngine,
        registration: Registration,
        datasets: Mapping[str, DatasetJobs],
        settings: Settings,
    ) -> None:
        self._engine = engine
        self._registration = registration
        self._datasets = datasets
        self._check_seconds = settings.webhook.check_seconds
        self._forget_alert_seconds = settings.forget.alert_seconds
        self._unfinished: dict[str, Row[Any]] = {}
        wakes = {name: jobs.wake for name, jobs in datasets.items()}
        files = FilesWatch(engine, settings.serving)
        works: Works = {
            "webhook": (_RESTART_SECONDS, self._keep_registered),
            "listen": (_RESTART_SECONDS, partial(listen, settings.database.libpq_url, wakes)),
            "database": (_DATABASE_SECONDS, self._measure),
            "forget_watch": (_MEASURE_SECONDS, self._watch_forgetting),
            "forget_files": (_FILES_SECONDS, lambda _stopping, _on_step: files.run()),
        }
        super().__init__("", works, settings.uploader.retry_cap_seconds)

    async def check_forgetting(self) -> str | None:
        """Return a note on the forget requests that take too long."""
        late = [one for one in self._unfinished.values() if one.age_seconds >= self._forget_alert_seconds]
        return " ".join(f"{one.dataset}: {explain_unfinished(one)}" for one in late) or None

    async def _keep_registered(self, stopping: asyncio.Event, on_step: OnStep) -> None:
        """Check our webhook in Argilla regularly, while this process leads a dataset."""
        while not stopping.is_set():
            leads = any(jobs.leads for jobs in self._datasets.values())
            if leads:
                await self._registration.renew()
            on_step()
            await wait_for_any(stopping, seconds=self._check_seconds if leads else _STAND_BY_SECONDS)

    async def _measure(self, _stopping: asyncio.Event, _on_step: OnStep) -> None:
        async with self._engine.connect() as connection:
            metrics.DATABASE_BYTES.set(await repository.measure_database(connection))

    async def _watch_forgetting(self, _stopping: asyncio.Event, _on_step: OnStep) -> None:
        """Set the gauge of unfinished forget requests, also for datasets without an uploader."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(UNFINISHED, {"older_than_seconds": 0})
            found: dict[str, Row[Any]] = {row.dataset: row for row in rows}
        for dataset in self._unfinished.keys() - found.keys():
            metrics.FORGET_OLDEST_SECONDS.labels(dataset).set(0)
        for dataset, one in found.items():
            metrics.FORGET_OLDEST_SECONDS.labels(dataset).set(one.age_seconds)
        self._unfinished = found
