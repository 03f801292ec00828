"""Brings the annotators' responses home: goes through every uploaded text, and takes over what Argilla holds."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from core.annotations import replace_annotations
from uploader import metrics, repository
from uploader.argilla_client import Argilla
from uploader.argilla_errors import ArgillaError, Fault, Stopped, Unreachable
from uploader.guard import Guard
from uploader.lane import Lane
from uploader.repository import Page
from uploader.responses import blocks_record, to_moment, to_response
from uploader.rhythm import Rhythm
from uploader.settings import MAX_SEARCH_TERMS

log = structlog.get_logger()

_BEFORE_ALL = UUID(int=0)
_NO_RECORD = "none"

RawResponses = dict[str, list[dict[str, Any]]]
Read = Callable[[Sequence[str]], Awaitable[RawResponses]]


async def sweep_if_due(lane: Lane, rhythm: Rhythm, guard: Guard) -> None:
    """Sweep a dataset that this process leads, when annotators were active or it is time to anyway.

    Raises:
        NotLeading: another uploader leads by now.
        ArgillaError: Argilla is away, or does not let us.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
    """
    prepared = await lane.prepare()
    try:
        await _sweep_if_due(lane, rhythm, guard, prepared.dataset_id)
    except Stopped:
        lane.prepared = None  # somebody changed something there
        raise


async def _sweep_if_due(lane: Lane, rhythm: Rhythm, guard: Guard, argilla_dataset_id: UUID) -> None:
    dataset = await lane.argilla.get_dataset(argilla_dataset_id)
    # Read before the sweep: what moves during it makes for another one.
    activity = to_moment(dataset["last_activity_at"])
    async with lane.engine.connect() as connection:
        seen = await repository.get_activity_seen(connection, lane.name)
    began_at = time.monotonic()
    # Any difference counts: Argilla may commit a later moment before an earlier one.
    if not rhythm.is_due(began_at, activity != seen):
        return

    def on_page() -> None:
        lane.leadership.check()
        guard.go_on()

    await Sweep(lane.argilla, lane.engine, lane.name, argilla_dataset_id).run(on_page)
    async with lane.engine.begin() as connection:
        await repository.mark_swept(connection, lane.name, activity)
    rhythm.note(began_at, time.monotonic())
    metrics.SWEEP_SECONDS.labels(lane.name).observe(rhythm.took_seconds)
    metrics.SWEPT_TIMESTAMP_SECONDS.labels(lane.name).set_to_current_time()


class Sweep:
    """One complete walk through the uploaded texts of a dataset, in the order of their ids."""

    def __init__(self, argilla: Argilla, engine: AsyncEngine, dataset: str, argilla_dataset_id: UUID) -> None:
        self.changed_count = 0
        self._argilla = argilla
        self._engine = engine
        self._dataset = dataset
        self._argilla_dataset_id = argilla_dataset_id
        self._usernames: dict[UUID, str] = {}

    async def run(self, on_page: Callable[[], None]) -> None:
        """Take over the responses of every uploaded text; calls `on_page` after each page.

        Raises:
            ArgillaError: Argilla is away; what was read until then is taken over.
        """
        self._usernames = await self._argilla.list_usernames()
        after = _BEFORE_ALL
        while page := await self._next_page(after):
            await self._take_over(page)
            after = page.ids[-1]
            on_page()

    async def _next_page(self, after: UUID) -> Page | None:
        async with self._engine.connect() as connection:
            return await repository.get_page(connection, self._dataset, after, MAX_SEARCH_TERMS)

    async def _take_over(self, page: Page) -> None:
        found, unreadable = await read_isolating(self._read, [str(id_) for id_ in page.ids])
        for id_ in unreadable:
            metrics.UNREADABLE_RECORDS.labels(self._dataset).inc()
            log.warning("sweep.record_unreadable", dataset=self._dataset, text_id=id_)
        await self._learn_usernames(found)
        responses = {
            UUID(id_): [to_response(UUID(id_), raw, self._usernames) for raw in raws]
            for id_, raws in found.items()
        }
        async with self._engine.begin() as connection:
            changed = await connection.run_sync(replace_annotations, self._dataset, page.read_at, responses)
        self.changed_count += changed
        metrics.SWEEP_CHANGED_TEXTS.labels(self._dataset).inc(changed)
        for raw in (raw for raws in found.values() for raw in raws if blocks_record(raw)):
            await self._heal(raw)

    async def _read(self, external_ids: Sequence[str]) -> RawResponses:
        return await self._argilla.read_responses(self._argilla_dataset_id, external_ids)

    async def _learn_usernames(self, found: RawResponses) -> None:
        """Make sure that every annotator has a name: Argilla's, else the one that we hold, else the id."""
        user_ids = {UUID(raw["user_id"]) for raws in found.values() for raw in raws}
        if user_ids <= self._usernames.keys():
            return
        self._usernames |= await self._argilla.list_usernames()
        unknown = user_ids - self._usernames.keys()
        async with self._engine.connect() as connection:
            held = await repository.list_held_usernames(connection, list(unknown))
        # Kept also for those without a name, so that they are looked up once a sweep.
        self._usernames |= {user_id: held.get(user_id, str(user_id)) for user_id in unknown}

    async def _heal(self, raw: dict[str, Any]) -> None:
        """Give a response empty values; without any, Argilla breaks down over every upsert of its record."""
        response_id = raw["id"]
        try:
            await self._argilla.call("PUT", f"responses/{response_id}", {"status": raw["status"], "values": {}})
        except Unreachable:
            raise
        except ArgillaError as error:
            log.warning("sweep.heal_failed", dataset=self._dataset, response_id=response_id, reason=str(error))
            return
        metrics.HEALED_RESPONSES.labels(self._dataset).inc()
        log.info("sweep.response_healed", dataset=self._dataset, response_id=response_id)


async def read_isolating(read: Read, external_ids: Sequence[str]) -> tuple[RawResponses, list[str]]:
    """Read the responses to some records; return them, and the records over which Argilla breaks down.

    Raises:
        Unreachable: it is not about the records, Argilla cannot read any.
    """
    found: RawResponses = {}
    unreadable: list[str] = []
    parts = [list(external_ids)]
    while parts:
        part = parts.pop()
        try:
            found |= await read(part)
        except Fault:
            await _check_reading(read)
            if len(part) == 1:
                unreadable += part
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
    return found, unreadable


async def _check_reading(read: Read) -> None:
    try:
        await read([_NO_RECORD])
    except Fault as fault:
        raise Unreachable("Argilla breaks down over every search") from fault
