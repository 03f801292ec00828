"""Finds records that Argilla has lost or that were deleted there, and repairs them."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import structlog

from core.labels.annotations import withdraw_annotations
from uploader import metrics
from uploader.argilla.errors import IndexLost, Stopped
from uploader.argilla.setup import Prepared
from uploader.dataset import DatasetState
from uploader.pull import repository
from uploader.pull.collector import Collector
from uploader.settings import MAX_SEARCH_TERMS

log = structlog.get_logger()

DELETED = "Its record was deleted in Argilla."


async def settle_missing(
    state: DatasetState, argilla_dataset_id: UUID, missing: Sequence[UUID], read_at: datetime
) -> list[UUID]:
    """Mark texts as failed whose record is no longer in Argilla's database, and withdraw their annotations.

    Return the texts whose record is there: Argilla's search index has lost them. Texts in flight, and texts of
    another dataset in Argilla, stay as they are.

    Raises:
        ArgillaError: Argilla is away.
    """
    if not missing:
        return []
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


async def repair_losses(
    state: DatasetState, collector: Collector, stopping: asyncio.Event, on_step: Callable[[], None]
) -> None:
    """Check whether Argilla lost something, and put the texts concerned back into the queue.

    Raises:
        NotLeading: another uploader leads by now.
        ArgillaError: Argilla is away, or does not let us.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
    """
    prepared = await state.prepare()
    try:
        await state.argilla.check_index(prepared.dataset_id)
    except IndexLost:
        await _set_aside(state, collector, prepared)
        await state.prepare()
    except Stopped:
        state.prepared = None  # an administrator changed it
        raise
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


async def show_again(state: DatasetState, argilla_dataset_id: UUID, ids: Sequence[UUID]) -> None:
    """Put texts back into the queue that Argilla has, but does not show."""
    if not ids:
        return
    async with state.leadership.transaction() as connection:
        count = await repository.show_again(connection, argilla_dataset_id, ids)
    metrics.REPAIRED_TEXTS.labels(state.name, "unseen").inc(count)
    log.warning("healing.texts_pending", dataset=state.name, reason="unseen", texts=count)


async def _set_aside(state: DatasetState, collector: Collector, prepared: Prepared) -> None:
    """Rename a dataset without an index, so that a new one is created; deletes nothing.

    Argilla creates an index only when a dataset is published; no call of its API does. Its database still
    has all answers: they are taken over before, and those that came meanwhile after.
    """
    await _take_over_stored(state, collector, prepared.dataset_id)
    state.leadership.check()
    name = f"{state.name}_lost_{datetime.now(UTC):%Y%m%d%H%M%S}"
    await state.argilla.rename_dataset(prepared.dataset_id, name)
    state.prepared = None
    await _take_over_stored(state, collector, prepared.dataset_id)
    metrics.LOST_INDEXES.labels(state.name).inc()
    log.warning(
        "healing.index_lost",
        dataset=state.name,
        argilla_dataset_id=str(prepared.dataset_id),
        set_aside_as=name,
        hint="a new dataset is made and filled from Postgres; delete the old one when nobody needs it",
    )


async def _take_over_stored(state: DatasetState, collector: Collector, argilla_dataset_id: UUID) -> None:
    offset = 0
    while True:
        state.leadership.check()
        async with state.engine.connect() as connection:
            read_at = await repository.get_clock(connection)
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
