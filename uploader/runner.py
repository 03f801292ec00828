"""Runs jobs: at intervals, with growing pauses after failures, and with an alert while one is blocked."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import anyio
import anyio.to_process
import psycopg
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from uploader import metrics
from uploader.argilla.errors import ArgillaError, Stopped
from uploader.leadership import NotLeading

Result = TypeVar("Result")


class Backoff:
    """The pause before the next attempt: twice as long after each failure, up to a cap, with jitter."""

    def __init__(self, cap_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0
        self._cap_seconds = cap_seconds
        self._clock = clock
        self._until = 0.0

    def fail(self) -> float:
        """Begin the next pause; return its length in seconds."""
        self.failures += 1
        longest = min(self._cap_seconds, 2.0 ** min(self.failures - 1, 30))
        seconds = longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret
        self._until = self._clock() + seconds
        return seconds

    def succeed(self) -> None:
        """Forget the failures."""
        self.failures = 0
        self._until = 0.0

    def is_on(self) -> bool:
        """Whether to wait still."""
        return self._clock() < self._until


log = structlog.get_logger()

# Errors of Postgres that end by waiting. Others return until an operator acts.
_OUTAGES = (OperationalError, InterfaceError, PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError)
_REFUSED_HINT = (
    "See that the schema and the role's rights are those of this release (python -m core.migrate); "
    "otherwise it is a mistake in the uploader, and Postgres' log has the statement."
)


class JobAlert(NamedTuple):
    """Why a job is blocked until an operator acts."""

    code: str
    reason: str  # for people; says what to do


class JobRunner:
    """Runs one job of one dataset: pauses it during an outage, and keeps the reason while it is blocked."""

    def __init__(self, dataset: str, job: str, backoff: Backoff) -> None:
        self.job = job
        self.reason: str | None = None
        self.alert: JobAlert | None = None
        self.has_run = False  # whether `alert` is known
        self._dataset = dataset
        self._backoff = backoff
        self._pause_seconds = 0.0
        self._kind: str | None = None

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work unless it pauses; when it fails, begin a pause."""
        if self._backoff.is_on():
            return
        try:
            await work()
        except NotLeading:
            self.stand_by()
        except Stopped as error:
            self._stand_still(type(error).__name__.lower(), error.reason, JobAlert(error.code, error.reason))
        except ArgillaError as error:
            self._stand_still(type(error).__name__.lower(), str(error))
        # Not the messages of Postgres' errors: they may quote texts.
        except _OUTAGES as error:
            self._stand_still("database", f"Postgres: {type(error).__name__}")
        except (SQLAlchemyError, psycopg.Error) as error:
            reason = f"Postgres refuses a statement: {type(error).__name__}"
            self._stand_still("database", reason, JobAlert("database_refused", f"{reason}. {_REFUSED_HINT}"))
        except Exception as error:
            log.exception("job.crashed", dataset=self._dataset, job=self.job)
            reason = f"a mistake in the uploader: {type(error).__name__}"
            self._stand_still("crash", reason, JobAlert("uploader_crash", f"{reason}. Its log has the traceback."))
        else:
            self.go_on()

    def pause(self) -> float:
        """Begin a pause unless one is on; return its length in seconds."""
        if not self._backoff.is_on():
            self._pause_seconds = self._backoff.fail()
        return self._pause_seconds

    def _stand_still(self, kind: str, reason: str, alert: JobAlert | None = None) -> None:
        self.pause()  # the work may have begun it itself
        if reason != self.reason:
            log.warning("job.stopped", dataset=self._dataset, job=self.job, kind=kind, reason=reason)
        self._show(kind)
        self.reason, self.alert, self.has_run = reason, alert, True

    def go_on(self) -> None:
        """Record progress. Long jobs call this on the way, so that they are shown as running again."""
        if self.reason is not None:
            log.info("job.resumed", dataset=self._dataset, job=self.job)
        self._forget()
        self.has_run = True

    def stand_by(self) -> None:
        """Forget everything: the job is another uploader's."""
        self._forget()
        self.has_run = False

    def _forget(self) -> None:
        self._show(None)
        self._backoff.succeed()
        self.reason = self.alert = None

    def _show(self, kind: str | None) -> None:
        if self._kind not in {None, kind}:
            metrics.JOB_STOPPED.labels(self._dataset, self.job, self._kind).set(0)
        if kind is not None:
            metrics.JOB_STOPPED.labels(self._dataset, self.job, kind).set(1)
        self._kind = kind


async def run_in_process(
    stopping: asyncio.Event, limiter: anyio.CapacityLimiter, work: Callable[..., Result], *arguments: object
) -> Result | None:
    """Run work in a separate process; return None when the uploader stops first, which ends the process.

    Raises:
        anyio.BrokenWorkerProcess: the process was killed, for example for lack of memory.
    """
    run = anyio.to_process.run_sync(work, *arguments, cancellable=True, limiter=limiter)
    running, stop = asyncio.ensure_future(run), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        return await running if running.done() else None
    finally:
        running.cancel()
        stop.cancel()
        await asyncio.wait({running, stop})


async def wait_for_any(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one of the events is set, for at most `seconds`."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


Job = Callable[[asyncio.Event], Awaitable[None]]

_JITTER_SHARE = 0.1
_CANCEL_SECONDS = 5


@asynccontextmanager
async def running(jobs: Iterable[tuple[float, Job]], stop_seconds: float) -> AsyncIterator[None]:
    """Run each job every so many seconds, with jitter, until the block ends; a job never overlaps with itself.

    At the end the event is set that each job gets. A job that has not ended `stop_seconds` later is cancelled.
    """
    stopping = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def run(job: Job) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the scheduler runs jobs as tasks
        tasks.add(task)
        try:
            await job(stopping)
        except asyncio.CancelledError:
            # At the end: the job has returned its claims.
            if not stopping.is_set():
                raise
        finally:
            tasks.discard(task)

    # A job that works off a backlog outlasts its interval. The scheduler would log that each time.
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
    scheduler = AsyncIOScheduler(
        timezone=UTC, job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
    )
    for seconds, job in jobs:
        trigger = IntervalTrigger(seconds=seconds, jitter=_JITTER_SHARE * seconds, timezone=UTC)
        scheduler.add_job(run, trigger, [job], next_run_time=datetime.now(UTC))
    scheduler.start()
    try:
        yield
    finally:
        stopping.set()
        scheduler.pause()
        await _wait(tasks, stop_seconds)
        for task in tasks:
            task.cancel()
        await _wait(tasks, _CANCEL_SECONDS)
        scheduler.shutdown(wait=False)


async def _wait(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
