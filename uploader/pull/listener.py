"""Reads the texts again whose annotations changed, as Argilla's events say: the fast way, beside the sweep."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import structlog

from core.database import connection_string
from core.models import REREADS_CHANNEL
from uploader import metrics
from uploader.argilla.errors import Fault, Gone, Stopped
from uploader.dataset import Lane
from uploader.pull import repository
from uploader.pull.collector import Collector, RawResponses
from uploader.pull.repair import settle_missing, show_again
from uploader.pull.repository import Note, Notes
from uploader.runner import Guard
from uploader.schedule import wait_for_any
from uploader.settings import MAX_SEARCH_TERMS

log = structlog.get_logger()

# Beside being woken.
_POLL_SECONDS = 2.0


async def follow_notes(
    lane: Lane, collector: Collector, wake: asyncio.Event, stopping: asyncio.Event, guard: Guard
) -> None:
    """Read noted texts again as soon as they are noted, until the uploader stops.

    Raises:
        NotLeading: another uploader leads by now.
        ArgillaError: Argilla is away, or does not let us; the notes stay.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
    """
    while not stopping.is_set():
        wake.clear()
        try:
            await _pull_all(lane, collector, stopping, guard)
        except Stopped:
            lane.prepared = None  # somebody changed something there
            raise
        guard.go_on()
        await wait_for_any(wake, stopping, seconds=_POLL_SECONDS)


async def _pull_all(lane: Lane, collector: Collector, stopping: asyncio.Event, guard: Guard) -> None:
    lane.leadership.check()
    prepared = await lane.prepare()
    while not stopping.is_set() and await pull_once(lane, collector, prepared.dataset_id):
        lane.leadership.check()
        guard.go_on()  # a backlog may take long


async def pull_once(lane: Lane, collector: Collector, argilla_dataset_id: UUID) -> int:
    """Read up to 250 of the noted texts again, the oldest notes first; return how many."""
    async with lane.engine.connect() as connection:
        notes = await repository.list_notes(connection, lane.name, MAX_SEARCH_TERMS)
    if notes is None:
        return 0
    await read_again(lane, collector, argilla_dataset_id, notes)
    async with lane.engine.begin() as connection:
        await repository.finish_notes(connection, lane.name, notes.items)
    for note in notes.items:
        waited = datetime.now(UTC) - note.received_at
        metrics.PULL_SECONDS.labels(lane.name).observe(max(0.0, waited.total_seconds()))
    return len(notes.items)


async def read_again(lane: Lane, collector: Collector, argilla_dataset_id: UUID, notes: Notes) -> None:
    """Make our annotations of the noted texts equal to what Argilla holds."""
    ids = [note.text_id for note in notes.items]
    collected = await collector.collect(argilla_dataset_id, ids, notes.read_at)
    unseen = await settle_missing(lane, argilla_dataset_id, collected.missing, notes.read_at)
    found = await _read_singly(lane, argilla_dataset_id, [n for n in notes.items if n.text_id in unseen])
    await show_again(lane, argilla_dataset_id, unseen)
    changed = len(collected.changed) + len(await collector.take_over(argilla_dataset_id, found, notes.read_at))
    metrics.PULL_CHANGED_TEXTS.labels(lane.name).inc(changed)


async def _read_singly(lane: Lane, argilla_dataset_id: UUID, notes: Sequence[Note]) -> RawResponses:
    """Read the responses of records that the search does not show, from Argilla's database."""
    found: RawResponses = {}
    for note in notes:
        # One that was deleted just now is noted again.
        with suppress(Gone):
            try:
                record = await lane.argilla.get_record(note.argilla_record_id)
            except Fault:
                metrics.UNREADABLE_RECORDS.labels(lane.name).inc()
                log.warning("pull.record_unreadable", dataset=lane.name, text_id=str(note.text_id))
                continue
            if (record["external_id"], record["dataset_id"]) == (str(note.text_id), str(argilla_dataset_id)):
                found[str(note.text_id)] = record["responses"] or []
    return found


async def listen(
    libpq_url: str, wakes: Mapping[str, asyncio.Event], stopping: asyncio.Event, guard: Guard
) -> None:
    """Set a dataset's event whenever a text of it is noted, until the uploader stops.

    Raises:
        psycopg.Error: Postgres is away.
    """
    url = connection_string(libpq_url, "uploader listener")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"listen {REREADS_CHANNEL}")
        guard.go_on()
        for wake in wakes.values():
            wake.set()
        while not stopping.is_set():
            async for notification in connection.notifies(timeout=_POLL_SECONDS, stop_after=1):
                if notification.payload in wakes:
                    wakes[notification.payload].set()
