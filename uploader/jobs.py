"""The scheduled jobs: thin wrappers that call the work."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy.ext.asyncio import AsyncEngine

from core.forgetting.service import Unfinished
from core.web.health import NotReady
from uploader import metrics, repository
from uploader.argilla.webhook import Registration
from uploader.dataset import DatasetState
from uploader.forgetting.repository import list_unfinished
from uploader.forgetting.service import FilesWatch, Forgetter
from uploader.model.model_job import ModelJob, ModelRemover
from uploader.pull import repository as pull_repository
from uploader.pull.collector import Collector
from uploader.pull.listener import follow_refresh_requests, listen
from uploader.pull.repair import repair_losses
from uploader.pull.sweep import Sweeper
from uploader.push.backlog import upload_backlog
from uploader.push.claiming import QueueStart
from uploader.rules.estimation import Estimator
from uploader.runner import Backoff, JobAlert, JobRunner, store_alerts, wait_for_any
from uploader.settings import PushSettings

Job = Callable[[asyncio.Event], Awaitable[None]]

_JITTER_SHARE = 0.1
_CANCEL_SECONDS = 5


class Schedule:
    """Runs jobs in the event loop at intervals; a job never overlaps with itself."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
        )
        # A job that works off a backlog outlasts its interval, and says so each time.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)

    def add(self, job: Job, seconds: float) -> None:
        """Run a job every `seconds`, with jitter; it should end soon after the event is set."""
        self._scheduler.add_job(
            self._run,
            IntervalTrigger(seconds=seconds, jitter=_JITTER_SHARE * seconds, timezone=UTC),
            [job],
            next_run_time=datetime.now(UTC),
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    async def stop(self, seconds: float) -> None:
        """Start no job any more, give the running ones some seconds to end, then cancel them."""
        self._stopping.set()
        self._scheduler.pause()
        await _wait(self._running, seconds)
        for task in self._running:
            task.cancel()
        await _wait(self._running, _CANCEL_SECONDS)
        self._scheduler.shutdown(wait=False)

    async def _run(self, job: Job) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the scheduler runs jobs as tasks
        self._running.add(task)
        try:
            await job(self._stopping)
        except asyncio.CancelledError:
            # From stop(): the job has returned its claims.
            if not self._stopping.is_set():
                raise
        finally:
            self._running.discard(task)


async def _wait(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


# A process that does not lead may have to take over soon.
_STAND_BY_SECONDS = 1.0


class DatasetJobs:
    """The jobs of one dataset. During an outage they pause, and raise nothing."""

    def __init__(
        self,
        state: DatasetState,
        push: PushSettings,
        sweeper: Sweeper,
        collector: Collector,
        estimator: Estimator,
        model: ModelJob | ModelRemover,
        retry_cap_seconds: float,
        watch_seconds: float,
    ) -> None:
        self.wake = asyncio.Event()  # set when a text is noted to be read again
        self._state = state
        self._push_settings = push
        self._queue_start = QueueStart()
        self._sweeper = sweeper
        self._collector = collector
        self._estimator = estimator
        self._model_work = model
        self._forgetter = Forgetter(state, watch_seconds)
        self._push, self._pull, self._sweep, self._repair, self._rule, self._model, self._forget = self._shown = [
            JobRunner(state.name, job, Backoff(retry_cap_seconds))
            for job in ("push", "pull", "sweep", "heal", "rule", "model", "forget")
        ]
        self._measure, self._tell = (
            JobRunner(state.name, job, Backoff(retry_cap_seconds)) for job in ("measure", "tell")
        )
        self._told: dict[str, JobAlert | None] = {}

    async def push(self, stopping: asyncio.Event) -> None:
        """Upload the pending texts."""
        await self._lead(
            self._push,
            lambda: upload_backlog(self._state, self._push_settings, self._push, stopping, self._queue_start),
        )

    async def pull(self, stopping: asyncio.Event) -> None:
        """Read again the texts of events, until the uploader stops."""
        work = lambda: follow_refresh_requests(self._state, self._collector, self.wake, stopping, self._pull)  # noqa: E731
        await self._lead(self._pull, work)

    async def sweep(self, stopping: asyncio.Event) -> None:
        """Read all texts again, if there is a reason."""
        await self._lead(self._sweep, lambda: self._sweeper.run(stopping, self._sweep.go_on))

    async def repair(self, stopping: asyncio.Event) -> None:
        """Restore what Argilla lost."""
        await self._lead(
            self._repair, lambda: repair_losses(self._state, self._collector, stopping, self._repair.go_on)
        )

    async def estimate(self, stopping: asyncio.Event) -> None:
        """Estimate the dataset's rule, and rewrite labels that it changes."""
        await self._lead(self._rule, lambda: self._estimator.run(stopping, self._rule.go_on))

    async def keep_model(self, stopping: asyncio.Event) -> None:
        """Train the dataset's model and predict with it; remove its traces where it is off."""
        await self._lead(self._model, lambda: self._model_work.run(stopping, self._model.go_on))

    async def forget(self, stopping: asyncio.Event) -> None:
        """Delete forgotten texts in Argilla."""
        await self._lead(self._forget, lambda: self._forgetter.run(stopping))

    @property
    def leads(self) -> bool:
        """Whether this process leads the work on the dataset."""
        return self._state.leadership.leads

    async def tell(self, _stopping: asyncio.Event) -> None:
        """Store the alerts: jobs that are blocked until an operator acts."""
        await self._tell.run(self._tell_alerts)

    async def measure(self, _stopping: asyncio.Event) -> None:
        """Set the gauges of the backlog and of open records."""
        await self._measure.run(self._show_backlog)

    async def check(self) -> None:
        """Check that the dataset's jobs are not blocked; standing by is fine.

        Raises:
            NotReady: a job is blocked; the message says why.
        """
        reason = next((g.reason for g in self._shown if g.reason is not None), None)
        if reason is None and not self._state.leadership.is_known:
            reason = "it is not known yet who leads"
        if reason is None and self._state.leadership.leads and self._state.prepared is None:
            reason = "not prepared yet"
        if reason is not None:
            raise NotReady(reason)

    async def _lead(self, runner: JobRunner, work: Callable[[], Awaitable[None]]) -> None:
        if self._state.leadership.leads:
            await runner.run(work)
        else:
            runner.stand_by()

    async def _tell_alerts(self) -> None:
        if not self._state.leadership.leads:
            self._told = {}
            return
        alerts = {runner.job: runner.alert for runner in self._shown if runner.has_run}
        if self._state.prepared is not None:
            alerts["settings"] = self._state.settings_alert
        if alerts != self._told:
            await store_alerts(self._state.engine, self._state.name, alerts)
            self._told = alerts

    async def _show_backlog(self) -> None:
        async with self._state.engine.connect() as connection:
            count, oldest_seconds = await repository.measure_backlog(connection, self._state.name)
            open_count = await repository.count_open(connection, self._state.name)
            requests, oldest_request_seconds = await pull_repository.measure_refresh_requests(
                connection, self._state.name
            )
        metrics.PENDING_TEXTS.labels(self._state.name).set(count)
        metrics.OLDEST_PENDING_SECONDS.labels(self._state.name).set(oldest_seconds)
        metrics.OPEN_RECORDS.labels(self._state.name).set(open_count)
        metrics.WAITING_REFRESH_REQUESTS.labels(self._state.name).set(requests)
        metrics.OLDEST_REFRESH_REQUEST_SECONDS.labels(self._state.name).set(oldest_request_seconds)


class DatabaseJobs:
    """The jobs that concern the whole database."""

    def __init__(
        self, engine: AsyncEngine, files: FilesWatch, retry_cap_seconds: float, forget_alert_seconds: float
    ) -> None:
        self._engine = engine
        self._files_watch = files
        self._forget_alert_seconds = forget_alert_seconds
        self._database, self._forget, self._files = (
            JobRunner("", job, Backoff(retry_cap_seconds)) for job in ("database", "forget_watch", "forget_files")
        )
        self._unfinished: dict[str, Unfinished] = {}

    async def measure(self, _stopping: asyncio.Event) -> None:
        """Set the gauge of the database's size."""
        await self._database.run(self._measure)

    async def _measure(self) -> None:
        async with self._engine.connect() as connection:
            metrics.DATABASE_BYTES.set(await repository.measure_database(connection))

    async def watch_forgetting(self, _stopping: asyncio.Event) -> None:
        """Set the gauge of unfinished forget requests, also for datasets without an uploader."""
        await self._forget.run(self._watch_forgetting)

    async def watch_files(self, _stopping: asyncio.Event) -> None:
        """Store which forgotten texts the serving API's files no longer hold."""
        await self._files.run(self._files_watch.run)

    async def _watch_forgetting(self) -> None:
        async with self._engine.connect() as connection:
            found = {one.dataset: one for one in await list_unfinished(connection)}
        for dataset in self._unfinished.keys() - found.keys():
            metrics.FORGET_OLDEST_SECONDS.labels(dataset).set(0)
        for dataset, one in found.items():
            metrics.FORGET_OLDEST_SECONDS.labels(dataset).set(one.age_seconds)
        self._unfinished = found

    async def check_forgetting(self) -> str | None:
        """Return a note on the forget requests that take too long."""
        late = [one for one in self._unfinished.values() if one.age_seconds >= self._forget_alert_seconds]
        return " ".join(f"{one.dataset}: {one.reason}" for one in late) or None


class WebhookJobs:
    """The jobs around events, shared by all datasets. They run until the uploader stops."""

    def __init__(
        self,
        registration: Registration,
        check_seconds: float,
        libpq_url: str,
        jobs: Mapping[str, DatasetJobs],
        retry_cap_seconds: float,
    ) -> None:
        self._registration = registration
        self._check_seconds = check_seconds
        self._url = libpq_url
        self._jobs = jobs
        self._renew, self._listen = (
            JobRunner("", job, Backoff(retry_cap_seconds)) for job in ("webhook", "listen")
        )

    async def renew(self, stopping: asyncio.Event) -> None:
        """Check our webhook in Argilla regularly, while this process leads a dataset."""
        await self._renew.run(lambda: self._keep_renewing(stopping))

    async def _keep_renewing(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            leads = any(jobs.leads for jobs in self._jobs.values())
            if leads:
                await self._registration.renew()
            self._renew.go_on()
            await wait_for_any(stopping, seconds=self._check_seconds if leads else _STAND_BY_SECONDS)

    async def listen(self, stopping: asyncio.Event) -> None:
        """Wake the datasets' pulls when texts are noted."""
        wakes = {name: jobs.wake for name, jobs in self._jobs.items()}
        await self._listen.run(lambda: listen(self._url, wakes, stopping, self._listen))
