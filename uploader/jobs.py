"""The scheduled jobs: thin entries that call the work."""

import asyncio

from uploader import metrics, repository
from uploader.backoff import Backoff
from uploader.guard import Guard
from uploader.lane import Lane
from uploader.rhythm import Rhythm
from uploader.settings import PushSettings, SweepSettings
from uploader.sweep import sweep_if_due
from uploader.upload import upload_backlog


class DatasetJobs:
    """The jobs of one dataset. None of them raises while something they need is away."""

    def __init__(self, lane: Lane, push: PushSettings, sweep: SweepSettings, retry_cap_seconds: float) -> None:
        self._lane = lane
        self._push_settings = push
        self._rhythm = Rhythm(sweep.full_sweep_seconds)
        self._push, self._sweep, self._measure = (
            Guard(lane.name, job, Backoff(retry_cap_seconds)) for job in ("push", "sweep", "measure")
        )

    async def push(self, stopping: asyncio.Event) -> None:
        """Upload what is pending."""
        await self._push.run(lambda: upload_backlog(self._lane, self._push_settings, self._push, stopping))

    async def sweep(self, _stopping: asyncio.Event) -> None:
        """Bring the annotations home, when it is time to."""
        await self._sweep.run(lambda: sweep_if_due(self._lane, self._rhythm, self._sweep))

    async def measure(self, _stopping: asyncio.Event) -> None:
        """Show the backlog."""
        await self._measure.run(self._show_backlog)

    async def check(self) -> None:
        """See that the work on the dataset goes on; standing by is fine.

        Raises:
            RuntimeError: it stands still; the message says why.
        """
        reason = self._push.reason or self._sweep.reason
        if reason is None and self._lane.leads is not False and self._lane.prepared is None:
            reason = "not prepared yet"
        if reason is not None:
            raise RuntimeError(reason)

    async def _show_backlog(self) -> None:
        async with self._lane.engine.connect() as connection:
            count, oldest_seconds = await repository.measure_backlog(connection, self._lane.name)
        metrics.PENDING_TEXTS.labels(self._lane.name).set(count)
        metrics.OLDEST_PENDING_SECONDS.labels(self._lane.name).set(oldest_seconds)
