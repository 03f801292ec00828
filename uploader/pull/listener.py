"""Reads again the texts of Argilla's events: the fast way; the sweep is the complete one."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import structlog
from sqlalchemy import Row

from core.connections import connection_string
from core.models import REREADS_CHANNEL
from uploader import metrics
from uploader.argilla.client import RawResponses
from uploader.argilla.errors import Fault, Gone, Stopped
from uploader.dataset import DatasetState
from uploader.pull import repository
from uploader.pull.collector import Collector
from uploader.pull.repair import settle_missing, show_again
from uploader.runner import JobRunner, wait_for_any
from uploader.settings import MAX_SEARCH_TERMS

log = structlog.get_logger()

# In addition to being woken.
_POLL_SECONDS = 2.0


async def follow_refresh_requests(
    state: DatasetState, collector: Collector, wake: asyncio.Event, stopping: asyncio.Event, runner: JobRunner
) -> None:
    """Read texts again as soon as there is a refresh request, until the uploader stops.

    Raises:
        NotLeading: another uploader leads by now.
        ArgillaError: Argilla is away, or does not let us; the requests stay.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
    """
    while not stopping.is_set():
        wake.clear()
        try:
            await _pull_all(state, collector, stopping, runner)
        except Stopped:
            state.prepared = None  # an administrator changed it
            raise
        runner.go_on()
        await wait_for_any(wake, stopping, seconds=_POLL_SECONDS)


async def _pull_all(state: DatasetState, collector: Collector, stopping: asyncio.Event, runner: JobRunner) -> None:
    state.leadership.check()
    prepared = await state.prepare()
    while not stopping.is_set() and await pull_once(state, collector, prepared.dataset_id):
        state.leadership.check()
        runner.go_on()  # a backlog may take long


async def pull_once(state: DatasetState, collector: Collector, argilla_dataset_id: UUID) -> int:
    """Read up to 250 of the noted texts again, the oldest requests first; return how many."""
    async with state.engine.connect() as connection:
        requests = await repository.list_refresh_requests(connection, state.name, MAX_SEARCH_TERMS)
    if not requests:
        return 0
    await read_again(state, collector, argilla_dataset_id, requests)
    async with state.engine.begin() as connection:
        await repository.finish_refresh_requests(connection, state.name, requests)
    for request in requests:
        waited = datetime.now(UTC) - request.received_at
        metrics.PULL_SECONDS.labels(state.name).observe(max(0.0, waited.total_seconds()))
    return len(requests)


async def read_again(
    state: DatasetState, collector: Collector, argilla_dataset_id: UUID, requests: Sequence[Row[Any]]
) -> None:
    """Make our annotations of the noted texts equal to what Argilla holds."""
    ids, read_at = [request.text_id for request in requests], requests[0].read_at
    collected = await collector.collect(argilla_dataset_id, ids, read_at)
    unseen = await settle_missing(state, argilla_dataset_id, collected.missing, read_at)
    found = await _read_singly(state, argilla_dataset_id, [n for n in requests if n.text_id in unseen])
    await show_again(state, argilla_dataset_id, unseen)
    changed = len(collected.changed) + len(await collector.take_over(argilla_dataset_id, found, read_at))
    metrics.PULL_CHANGED_TEXTS.labels(state.name).inc(changed)


async def _read_singly(
    state: DatasetState, argilla_dataset_id: UUID, requests: Sequence[Row[Any]]
) -> RawResponses:
    """Read the responses of records that the search does not show, from Argilla's database."""
    found: RawResponses = {}
    for request in requests:
        # One that was deleted just now is noted again.
        with suppress(Gone):
            try:
                record = await state.argilla.get_record(request.argilla_record_id)
            except Fault:
                metrics.UNREADABLE_RECORDS.labels(state.name).inc()
                log.warning("pull.record_unreadable", dataset=state.name, text_id=str(request.text_id))
                continue
            if (record["external_id"], record["dataset_id"]) == (str(request.text_id), str(argilla_dataset_id)):
                found[str(request.text_id)] = record["responses"] or []
    return found


async def listen(
    libpq_url: str, wakes: Mapping[str, asyncio.Event], stopping: asyncio.Event, runner: JobRunner
) -> None:
    """Set a dataset's event whenever a text of it is noted, until the uploader stops.

    Raises:
        psycopg.Error: Postgres is away.
    """
    url = connection_string(libpq_url, "uploader listener")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"listen {REREADS_CHANNEL}")
        runner.go_on()
        for wake in wakes.values():
            wake.set()
        while not stopping.is_set():
            async for notification in connection.notifies(timeout=_POLL_SECONDS, stop_after=1):
                if notification.payload in wakes:
                    wakes[notification.payload].set()
