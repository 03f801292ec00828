"""When the jobs run, and how they stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import anyio
import anyio.to_process
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

Result = TypeVar("Result")

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
