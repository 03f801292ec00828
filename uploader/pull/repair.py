"""Finds records that Argilla has lost or that were deleted there, and repairs them."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

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
    """Set those aside whose record is not in Argilla's database any more, and withdraw their annotations.

    Return those whose record is there: Argilla's search index has lost them. Nothing is concluded about texts
    that are on their way, or that were uploaded into another dataset than this one.

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


_STEP_TEXTS = 1000

_POSITION = text("select refill_position from datasets where name = :dataset")

_STEP = text("""
select id from texts where dataset = :dataset and status = 'uploaded' and id > :position order by id limit :count
""")

# uploaded -> pending: the dataset in Argilla that held the record is no more
_REQUEUE = text("""
update texts set status = 'pending', retry_at = null, page_position = coalesce(page_position, sequence)
from datasets
where texts.id = any(:ids) and texts.status = 'uploaded' and datasets.name = texts.dataset
    and (texts.uploaded_at is null or texts.uploaded_at < datasets.argilla_dataset_at)
""")

_ADVANCE = text("update datasets set refill_position = :position where name = :dataset")

# uploaded -> pending: the record is in Argilla's database, but not in its index; a second PUT indexes it
_SHOW_AGAIN = text("""
update texts set status = 'pending', retry_at = null, page_position = coalesce(page_position, sequence)
from datasets
where texts.id = any(:ids) and texts.status = 'uploaded' and datasets.name = texts.dataset
    and datasets.argilla_dataset_id = :argilla_dataset_id
""")

_OURS = text("select id from texts where dataset = :dataset and id = any(:ids)")

_NOW = text("select clock_timestamp()")


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
        async with state.engine.begin() as connection:
            await state.leadership.confirm(connection, to_change=True)
            position = await connection.scalar(_POSITION, {"dataset": state.name})
            metrics.REFILLING.labels(state.name).set(position is not None)
            if position is None:
                break
            count = await _requeue_step(connection, state.name, position)
        metrics.REPAIRED_TEXTS.labels(state.name, "dataset_lost").inc(count)
        total += count
        on_step()
    if total:
        log.info("healing.texts_pending", dataset=state.name, reason="dataset_lost", texts=total)


async def _requeue_step(connection: AsyncConnection, dataset: str, position: UUID) -> int:
    values = {"dataset": dataset, "position": position, "count": _STEP_TEXTS}
    ids = list((await connection.scalars(_STEP, values)).all())
    await connection.execute(_ADVANCE, {"dataset": dataset, "position": ids[-1] if ids else None})
    return (await connection.execute(_REQUEUE, {"ids": ids})).rowcount


async def show_again(state: DatasetState, argilla_dataset_id: UUID, ids: Sequence[UUID]) -> None:
    """Put texts back into the queue that Argilla has, but does not show."""
    if not ids:
        return
    async with state.engine.begin() as connection:
        await state.leadership.confirm(connection)
        values = {"ids": list(ids), "argilla_dataset_id": argilla_dataset_id}
        count = (await connection.execute(_SHOW_AGAIN, values)).rowcount
    metrics.REPAIRED_TEXTS.labels(state.name, "unseen").inc(count)
    log.warning("healing.texts_pending", dataset=state.name, reason="unseen", texts=count)


async def _set_aside(state: DatasetState, collector: Collector, prepared: Prepared) -> None:
    """Give a dataset without an index another name, so that a new one is made; nothing of it is deleted.

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
            read_at = await connection.scalar(_NOW)
        found = await state.argilla.list_stored_responses(argilla_dataset_id, offset, MAX_SEARCH_TERMS)
        if not found:
            return
        async with state.engine.connect() as connection:
            values = {"dataset": state.name, "ids": [UUID(id_) for id_ in found if _is_id(id_)]}
            ours = (await connection.scalars(_OURS, values)).all()
        await collector.take_over(argilla_dataset_id, {str(id_): found[str(id_)] for id_ in ours}, read_at)
        offset += MAX_SEARCH_TERMS


def _is_id(external_id: str) -> bool:
    try:
        return str(UUID(external_id)) == external_id
    except ValueError:
        return False
