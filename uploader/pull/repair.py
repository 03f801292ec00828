"""Finds out whether Argilla lost a dataset or its index, and has the texts uploaded again."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import structlog

from uploader import metrics
from uploader.argilla.errors import IndexLost
from uploader.argilla.setup import Prepared
from uploader.dataset import DatasetState
from uploader.pull import repository
from uploader.pull.collector import Collector
from uploader.repository import get_clock
from uploader.settings import MAX_SEARCH_TERMS

log = structlog.get_logger()


async def repair_losses(collector: Collector, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
    """Check whether Argilla lost something, and put the texts concerned back into the queue.

    Raises:
        NotLeading: another uploader leads by now.
        ArgillaError: Argilla is away, or does not let us.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
    """
    state = collector.state
    try:
        async with state.in_argilla() as prepared:
            await state.argilla.check_index(prepared.dataset_id)
    except IndexLost:
        await _set_aside(collector, prepared)
        await state.prepare()
    await _refill(state, stopping, on_step)


async def _refill(state: DatasetState, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
    """Put the texts of a lost dataset back into the queue, in steps that outlive this process."""
    total = 0
    while not stopping.is_set():
        async with state.leadership.transaction(to_change=True) as connection:
            position = await repository.get_refill_position(connection, state.name)
            metrics.REFILLING.labels(state.name).set(position is not None)
            if position is None:
                break
            count = await repository.refill(connection, state.name, position)
        metrics.REPAIRED_TEXTS.labels(state.name, "dataset_lost").inc(count)
        total += count
        on_step()
    if total:
        log.info("healing.texts_pending", dataset=state.name, reason="dataset_lost", texts=total)


async def _set_aside(collector: Collector, prepared: Prepared) -> None:
    """Rename a dataset without an index, so that a new one is created; deletes nothing.

    Argilla creates an index only when a dataset is published; no call of its API does. Its database still
    has all answers: they are taken over before, and those that came meanwhile after.
    """
    state = collector.state
    await _take_over_stored(collector, prepared.dataset_id)
    state.leadership.check()
    name = f"{state.name}_lost_{datetime.now(UTC):%Y%m%d%H%M%S}"
    await state.argilla.rename_dataset(prepared.dataset_id, name)
    state.prepared = None
    await _take_over_stored(collector, prepared.dataset_id)
    metrics.LOST_INDEXES.labels(state.name).inc()
    log.warning(
        "healing.index_lost",
        dataset=state.name,
        argilla_dataset_id=str(prepared.dataset_id),
        set_aside_as=name,
        hint="a new dataset is made and filled from Postgres; delete the old one when nobody needs it",
    )


async def _take_over_stored(collector: Collector, argilla_dataset_id: UUID) -> None:
    state, offset = collector.state, 0
    while True:
        state.leadership.check()
        async with state.engine.connect() as connection:
            read_at = await get_clock(connection)
        records = await state.argilla.list_records(
            argilla_dataset_id, offset, MAX_SEARCH_TERMS, include="responses"
        )
        if not records:
            return
        found = {str(record["external_id"]): record["responses"] or [] for record in records}
        async with state.engine.connect() as connection:
            ours = await repository.list_ours(connection, state.name, [UUID(id_) for id_ in found if _is_id(id_)])
        await collector.take_over(argilla_dataset_id, {str(id_): found[str(id_)] for id_ in ours}, read_at)
        offset += MAX_SEARCH_TERMS


def _is_id(external_id: str) -> bool:
    try:
        return str(UUID(external_id)) == external_id
    except ValueError:
        return False
