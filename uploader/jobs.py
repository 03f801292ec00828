"""The scheduled jobs: thin entries that call the work."""

import asyncio
from collections.abc import Awaitable, Callable

from uploader import metrics, repository
from uploader.alerts import store_alerts
from uploader.backoff import Backoff
from uploader.guard import Alert, Guard
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
        self._push, self._sweep, self._measure, self._tell = (
            Guard(lane.name, job, Backoff(retry_cap_seconds)) for job in ("push", "sweep", "measure", "tell")
        )
        self._told: dict[str, Alert | None] = {}

    async def push(self, stopping: asyncio.Event) -> None:
        """Upload what is pending."""
        await self._lead(self._push, lambda: upload_backlog(self._lane, self._push_settings, self._push, stopping))

    async def sweep(self, _stopping: asyncio.Event) -> None:
        """Bring the annotations home, when it is time to."""
        await self._lead(self._sweep, lambda: sweep_if_due(self._lane, self._rhythm, self._sweep))

    async def tell(self, _stopping: asyncio.Event) -> None:
        """Store what stands still until somebody does something."""
        await self._tell.run(self._tell_alerts)

    async def measure(self, _stopping: asyncio.Event) -> None:
        """Show the backlog."""
        await self._measure.run(self._show_backlog)

    async def check(self) -> None:
        """See that the work on the dataset goes on; standing by is fine.

        Raises:
            RuntimeError: it stands still; the message says why.
        """
        reason = self._push.reason or self._sweep.reason
        if reason is None and not self._lane.leadership.is_known:
            reason = "it is not known yet who leads"
        if reason is None and self._lane.leadership.leads and self._lane.prepared is None:
            reason = "not prepared yet"
        if reason is not None:
            raise RuntimeError(reason)

    async def _lead(self, guard: Guard, work: Callable[[], Awaitable[None]]) -> None:
        if self._lane.leadership.leads:
            await guard.run(work)
        else:
            guard.stand_by()

    async def _tell_alerts(self) -> None:
        if not self._lane.leadership.leads:
            self._told = {}
            return
        alerts = {guard.job: guard.alert for guard in (self._push, self._sweep) if guard.has_run}
        if alerts != self._told:
            await store_alerts(self._lane.engine, self._lane.name, alerts)
            self._told = alerts

    async def _show_backlog(self) -> None:
        async with self._lane.engine.connect() as connection:
            count, oldest_seconds = await repository.measure_backlog(connection, self._lane.name)
        metrics.PENDING_TEXTS.labels(self._lane.name).set(count)
        metrics.OLDEST_PENDING_SECONDS.labels(self._lane.name).set(oldest_seconds)
