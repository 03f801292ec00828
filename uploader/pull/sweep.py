"""The sweep reads every uploaded text of a dataset again."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row

from core.text_identity import BEFORE_ALL
from uploader import metrics
from uploader.argilla.client import Argilla
from uploader.argilla.records import to_moment
from uploader.argilla.webhook import Registration, WebhookHealth
from uploader.forgetting import keep_out
from uploader.pull import repository
from uploader.pull.collector import Collector
from uploader.pull.repository import Counts
from uploader.runner import wait_for_any
from uploader.settings import MAX_SEARCH_TERMS, SweepSettings

log = structlog.get_logger()

# After this time it checks again whether there is a reason to go faster.
_SLICE_SECONDS = 10
_LONGEST_PAUSE_SECONDS = 30
_EVENT_SECONDS = timedelta(seconds=10)


async def count_in_argilla(argilla: Argilla, argilla_dataset_id: UUID) -> Counts:
    """Count responses by annotator and status, and records in Argilla's database and in its index."""
    path = f"datasets/{argilla_dataset_id}"
    counts: Counts = Counter()
    for user in (await argilla.call("GET", f"{path}/users/progress"))["users"]:
        for by_status in (user.get("pending"), user.get("completed")):
            for status, n in (by_status or {}).items():
                counts[f"{user['username']}/{status}"] += n
    counts["stored"] = (await argilla.call("GET", f"{path}/records", limit=1))["total"]
    counts["visible"] = (await argilla.call("GET", f"{path}/progress"))["total"]
    return counts


class Reason(StrEnum):
    """Why a sweep is due. All but the last one are urgent."""

    FIRST = "first"  # this dataset was never swept
    ACTIVITY = "activity"  # annotators were active, and no event tells what they did
    COUNTS = "counts"  # Argilla holds more or less than we do
    TIME = "time"  # nothing is known to be wrong


class Sweeper:
    """Sweeps one dataset."""

    def __init__(
        self,
        collector: Collector,
        settings: SweepSettings,
        registration: Registration,
        health: WebhookHealth,
    ) -> None:
        self._state = collector.state
        self._collector = collector
        self._settings = settings
        self._registration = registration
        self._health = health
        self._difference: Counts | None = None
        self._count_at = 0.0  # not before, by time.monotonic()
        self._began_at: float | None = None
        self._took_seconds: float | None = None  # by the last sweep that this process did as a whole

    async def run(self, stopping: asyncio.Event, on_page: Callable[[], None]) -> None:
        """Sweep for a while, if a sweep is due; calls `on_page` after each page.

        Raises:
            NotLeading: another uploader leads by now.
            ArgillaError: Argilla is away, or does not let us; pages read until then are stored.
            psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
        """
        async with self._state.in_argilla() as prepared:
            await self._run(prepared.dataset_id, stopping, on_page)

    async def _run(self, argilla_dataset_id: UUID, stopping: asyncio.Event, on_page: Callable[[], None]) -> None:
        dataset = await self._state.argilla.get_dataset(argilla_dataset_id)
        # Read before the sweep: what moves during it makes for another one.
        activity = to_moment(dataset["last_activity_at"])
        progress = await self._get_state()
        if progress.refill_position is not None:
            return  # what Argilla lost is not yet on its way back
        reason = self._why(activity, progress)
        if reason is None and progress.sweep_position is None and time.monotonic() >= self._count_at:
            await self._count(argilla_dataset_id, activity)
            reason = self._why(activity, progress)
        if progress.sweep_position is None:
            if reason is None:
                return
            await self._begin(activity, reason)
        position = progress.sweep_position or BEFORE_ALL
        await self._walk(argilla_dataset_id, position, self._share(reason), stopping, on_page)

    def _why(self, activity: datetime, progress: Row[Any]) -> Reason | None:
        now = time.monotonic()
        self._health.see(activity, progress.activity_seen_at, progress.events_applied_at, now)
        is_late = self._health.is_late(now, self._took_seconds)
        metrics.WEBHOOK_LATE.labels(self._state.name).set(self._registration.is_on and is_late)
        if progress.seconds_since_swept is None:
            return Reason.FIRST
        # Any difference counts: Argilla may commit a later moment before an earlier one.
        if activity != progress.activity_seen_at and (is_late or not self._registration.is_on):
            return Reason.ACTIVITY
        if self._difference and self._difference != progress.difference_seen:
            return Reason.COUNTS
        if progress.seconds_since_swept >= self._settings.full_sweep_seconds:
            return Reason.TIME
        return None

    def _share(self, reason: Reason | None) -> float:
        urgent = reason not in {None, Reason.TIME}
        return self._settings.sweep_busy_share if urgent else self._settings.sweep_share

    async def _count(self, argilla_dataset_id: UUID, activity: datetime) -> None:
        began_at = time.monotonic()
        await self._collector.refresh_usernames()
        # Until all activity is explained the counts must differ.
        difference = None
        if self._health.is_settled():
            difference = await self._find_difference(argilla_dataset_id, activity)
        took_seconds = time.monotonic() - began_at
        rest = max(self._settings.count_interval_seconds, took_seconds / self._settings.sweep_share)
        self._count_at = time.monotonic() + rest
        metrics.COUNT_SECONDS.labels(self._state.name).observe(took_seconds)
        if difference is not None:
            self._difference = difference
            metrics.COUNT_DIFFERENCE.labels(self._state.name).set(sum(map(abs, difference.values())))

    async def _find_difference(self, argilla_dataset_id: UUID, activity: datetime) -> Counts | None:
        """Return by how much Argilla's counts are over ours, where they differ.

        None when something changed meanwhile, so that it cannot be decided. `activity` is Argilla's
        last_activity_at before this call.
        """
        held = await self._count_held()
        if held is None:
            return None
        theirs = await count_in_argilla(self._state.argilla, argilla_dataset_id)
        names = sorted(held.keys() | theirs.keys())
        difference = {name: n for name in names if (n := theirs.get(name, 0) - held.get(name, 0))}
        if difference:
            dataset = await self._state.argilla.get_dataset(argilla_dataset_id)
            if to_moment(dataset["last_activity_at"]) != activity or await self._count_held() != held:
                return None
        return difference

    async def _count_held(self) -> Counts | None:
        async with self._state.engine.connect() as connection:
            return await repository.count_held(connection, self._state.name)

    async def _get_state(self) -> Row[Any]:
        async with self._state.engine.connect() as connection:
            return await repository.get_sweep_state(connection, self._state.name)

    async def _begin(self, activity: datetime, reason: Reason) -> None:
        await self._collector.refresh_usernames()
        await keep_out(self._state)
        async with self._state.leadership.transaction(to_change=True) as connection:
            await repository.begin_sweep(connection, self._state.name, activity, self._difference)
        self._began_at = time.monotonic()
        metrics.SWEEPS.labels(self._state.name, reason).inc()
        log.info("sweep.begun", dataset=self._state.name, reason=str(reason))

    async def _walk(
        self,
        argilla_dataset_id: UUID,
        after: UUID,
        share: float,
        stopping: asyncio.Event,
        on_page: Callable[[], None],
    ) -> None:
        """Read pages for a while, and keep Argilla busy for at most `share` of that time."""
        slice_ends_at = time.monotonic() + _SLICE_SECONDS
        while not stopping.is_set() and time.monotonic() < slice_ends_at:
            self._state.leadership.check()
            began_at = time.monotonic()
            async with self._state.engine.connect() as connection:
                page = await repository.get_page(connection, self._state.name, after, MAX_SEARCH_TERMS)
            if not page:
                await self._end()
                return
            after = page[-1].id
            await self._take_over(argilla_dataset_id, [row.id for row in page], page[0].read_at)
            on_page()
            pause = (time.monotonic() - began_at) * (1 / share - 1)
            await wait_for_any(stopping, seconds=min(pause, _LONGEST_PAUSE_SECONDS))

    async def _take_over(self, argilla_dataset_id: UUID, ids: Sequence[UUID], read_at: datetime) -> None:
        collected = await self._collector.collect(argilla_dataset_id, ids, read_at)
        metrics.UNSEEN_RECORDS.labels(self._state.name).inc(len(collected.unseen))
        metrics.SWEEP_CHANGED_TEXTS.labels(self._state.name).inc(len(collected.changed))
        # A process that was frozen must not move the position of its follower, who would skip texts.
        async with self._state.leadership.transaction(to_change=True) as connection:
            await repository.advance_sweep(connection, self._state.name, ids[-1])
            if self._registration.is_on:
                lost = await repository.count_older(connection, collected.changed, read_at - _EVENT_SECONDS)
                metrics.LOST_EVENTS.labels(self._state.name).inc(lost)

    async def _end(self) -> None:
        async with self._state.leadership.transaction(to_change=True) as connection:
            await repository.end_sweep(connection, self._state.name)
        if self._began_at is not None:  # else it began in another process
            self._took_seconds = time.monotonic() - self._began_at
            metrics.SWEEP_SECONDS.labels(self._state.name).observe(self._took_seconds)
        metrics.SWEPT_TIMESTAMP_SECONDS.labels(self._state.name).set_to_current_time()
        log.info("sweep.ended", dataset=self._state.name)
