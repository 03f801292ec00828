"""Reads the responses to some texts from Argilla, and makes our annotations equal to them.

Events say which texts: the fast way. The sweep reads all of them: the complete way.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import structlog
from sqlalchemy import Row

from core.connections import connection_string
from core.labels.annotations import replace_annotations, withdraw_annotations
from core.models import REREADS_CHANNEL
from core.tracing import tracing
from uploader import metrics
from uploader.argilla.client import RawResponses, read_isolating
from uploader.argilla.errors import ArgillaError, Fault, Gone, Unreachable
from uploader.argilla.records import blocks_record, to_response
from uploader.dataset import DatasetState
from uploader.pull import repository
from uploader.runner import wait_for_any
from uploader.settings import MAX_SEARCH_TERMS

log = structlog.get_logger()

DELETED = "Its record was deleted in Argilla."

# In addition to being woken.
_POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of the texts that were read."""

    changed: Sequence[UUID]
    unseen: Sequence[UUID]  # Argilla has them, but its search does not show them: they are pending again


class Collector:
    """Stores the responses to texts of one dataset; keeps the users' names for its callers."""

    def __init__(self, state: DatasetState) -> None:
        self.state = state
        self._usernames: dict[UUID, str] = {}

    async def refresh_usernames(self) -> None:
        """Read the names of all users, which may have changed."""
        self._usernames = await self.state.argilla.list_usernames()

    async def collect(self, argilla_dataset_id: UUID, ids: Sequence[UUID], read_at: datetime) -> Collected:
        """Take over the responses to up to 250 texts; `read_at` is Postgres' clock before this call.

        A text whose record was deleted fails, and its annotations are withdrawn.

        Raises:
            NotLeading: another uploader leads by now.
            ArgillaError: Argilla is away.
        """
        name, argilla = self.state.name, self.state.argilla
        read = partial(argilla.read_responses, argilla_dataset_id)
        found, unreadable = await read_isolating(read, [str(id_) for id_ in ids])
        for id_ in unreadable:
            _note_unreadable(name, id_)
        changed = await self.take_over(argilla_dataset_id, found, read_at)
        # Argilla also breaks down over a deleted record that it failed to take out of its index.
        missing = [id_ for id_ in ids if str(id_) not in found]
        unseen = await self._settle_missing(argilla_dataset_id, missing, read_at) if missing else []
        await show_again(self.state, argilla_dataset_id, unseen)
        return Collected(changed, unseen)

    async def take_over(self, argilla_dataset_id: UUID, found: RawResponses, read_at: datetime) -> Sequence[UUID]:
        """Make our annotations of these records' texts equal to all of their responses; return what changed."""
        await self._learn_usernames(found)
        responses = {
            UUID(id_): [to_response(UUID(id_), raw, self._usernames) for raw in raws]
            for id_, raws in found.items()
        }
        async with self.state.engine.begin() as connection:
            changed = await connection.run_sync(
                replace_annotations, self.state.datasets, self.state.name, read_at, responses, argilla_dataset_id
            )
        read_ns = int(read_at.timestamp() * 1e9)
        for id_ in changed:
            tracing.add_step("pull", id_, read_ns, attributes={"dataset": self.state.name})
        for raw in (raw for raws in found.values() for raw in raws if blocks_record(raw)):
            await self._repair(raw)
        return changed

    async def _learn_usernames(self, found: RawResponses) -> None:
        """Make sure that every annotator has a name: Argilla's, else the one that we hold, else the id."""
        user_ids = {UUID(raw["user_id"]) for raws in found.values() for raw in raws}
        if user_ids <= self._usernames.keys():
            return
        self._usernames |= await self.state.argilla.list_usernames()
        unknown = user_ids - self._usernames.keys()
        async with self.state.engine.connect() as connection:
            held = await repository.list_held_usernames(connection, list(unknown))
        # Kept also for those without a name, so that they are looked up once a sweep.
        self._usernames |= {user_id: held.get(user_id, str(user_id)) for user_id in unknown}

    async def _settle_missing(
        self, argilla_dataset_id: UUID, missing: Sequence[UUID], read_at: datetime
    ) -> list[UUID]:
        """Mark texts as failed whose record is no longer in Argilla's database, and withdraw their annotations.

        Return the texts whose record is there: Argilla's search index has lost them. Texts in flight, and texts of
        another dataset in Argilla, stay as they are.
        """
        state = self.state
        stored = await state.argilla.find_stored(argilla_dataset_id, [str(id_) for id_ in missing])
        gone = [id_ for id_ in missing if str(id_) not in stored]
        async with state.engine.begin() as connection:
            deleted = await repository.lock_deleted(connection, argilla_dataset_id, gone, read_at)
            await connection.run_sync(withdraw_annotations, state.datasets, state.name, read_at, deleted)
            await repository.mark_deleted(connection, deleted, DELETED)
        for id_ in deleted:
            log.warning("record.deleted", dataset=state.name, text_id=str(id_))
        metrics.DELETED_RECORDS.labels(state.name).inc(len(deleted))
        return [id_ for id_ in missing if str(id_) in stored]

    async def _repair(self, raw: dict[str, Any]) -> None:
        """Give a response empty values; without any, Argilla breaks down over every upsert of its record."""
        response_id = raw["id"]
        try:
            await self.state.argilla.call(
                "PUT", f"responses/{response_id}", {"status": raw["status"], "values": {}}
            )
        except Unreachable:
            raise
        except ArgillaError as error:
            metrics.REFUSED_REPAIRS.labels(self.state.name, "response").inc()
            log.warning("repair.refused", dataset=self.state.name, response_id=response_id, reason=str(error))
            return
        metrics.REPAIRED_RESPONSES.labels(self.state.name).inc()
        log.info("repair.response_repaired", dataset=self.state.name, response_id=response_id)


def _note_unreadable(dataset: str, text_id: str) -> None:
    metrics.UNREADABLE_RECORDS.labels(dataset).inc()
    log.warning("pull.record_unreadable", dataset=dataset, text_id=text_id)


async def show_again(state: DatasetState, argilla_dataset_id: UUID, ids: Sequence[UUID]) -> None:
    """Put texts back into the queue that Argilla has, but does not show."""
    if not ids:
        return
    async with state.leadership.transaction() as connection:
        count = await repository.show_again(connection, argilla_dataset_id, ids)
    metrics.REPAIRED_TEXTS.labels(state.name, "unseen").inc(count)
    log.warning("healing.texts_pending", dataset=state.name, reason="unseen", texts=count)


async def follow_refresh_requests(
    collector: Collector, wake: asyncio.Event, stopping: asyncio.Event, on_step: Callable[[], None]
) -> None:
    """Read texts again as soon as there is a refresh request, until the uploader stops.

    Raises:
        NotLeading: another uploader leads by now.
        ArgillaError: Argilla is away, or does not let us; the requests stay.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
    """
    while not stopping.is_set():
        wake.clear()
        collector.state.leadership.check()
        async with collector.state.in_argilla() as prepared:
            while not stopping.is_set() and await pull_once(collector, prepared.dataset_id):
                collector.state.leadership.check()
                on_step()  # a backlog may take long
        on_step()
        await wait_for_any(wake, stopping, seconds=_POLL_SECONDS)


async def pull_once(collector: Collector, argilla_dataset_id: UUID) -> int:
    """Read up to 250 of the noted texts again, the oldest requests first; return how many."""
    state = collector.state
    async with state.engine.connect() as connection:
        requests = await repository.list_refresh_requests(connection, state.name, MAX_SEARCH_TERMS)
    if not requests:
        return 0
    await read_again(collector, argilla_dataset_id, requests)
    async with state.engine.begin() as connection:
        await repository.finish_refresh_requests(connection, state.name, requests)
    for request in requests:
        waited = datetime.now(UTC) - request.received_at
        metrics.PULL_SECONDS.labels(state.name).observe(max(0.0, waited.total_seconds()))
    return len(requests)


async def read_again(collector: Collector, argilla_dataset_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """Make our annotations of the noted texts equal to what Argilla holds."""
    ids, read_at = [request.text_id for request in requests], requests[0].read_at
    collected = await collector.collect(argilla_dataset_id, ids, read_at)
    unseen = [request for request in requests if request.text_id in collected.unseen]
    found = await _read_singly(collector.state, argilla_dataset_id, unseen)
    changed = len(collected.changed) + len(await collector.take_over(argilla_dataset_id, found, read_at))
    metrics.PULL_CHANGED_TEXTS.labels(collector.state.name).inc(changed)


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
                _note_unreadable(state.name, str(request.text_id))
                continue
            if (record["external_id"], record["dataset_id"]) == (str(request.text_id), str(argilla_dataset_id)):
                found[str(request.text_id)] = record["responses"] or []
    return found


async def listen(
    libpq_url: str, wakes: Mapping[str, asyncio.Event], stopping: asyncio.Event, on_step: Callable[[], None]
) -> None:
    """Set a dataset's event whenever a text of it is noted, until the uploader stops.

    Raises:
        psycopg.Error: Postgres is away.
    """
    url = connection_string(libpq_url, "uploader listener")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"listen {REREADS_CHANNEL}")
        on_step()
        for wake in wakes.values():
            wake.set()
        while not stopping.is_set():
            async for notification in connection.notifies(timeout=_POLL_SECONDS, stop_after=1):
                if notification.payload in wakes:
                    wakes[notification.payload].set()
