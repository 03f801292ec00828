"""Texts whose record was deleted in Argilla, told apart from those that its search just does not show."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog

from core.annotations import withdraw_annotations
from uploader import metrics, pull_repository
from uploader.lane import Lane

log = structlog.get_logger()

DELETED = "Its record was deleted in Argilla."


async def settle_missing(
    lane: Lane, argilla_dataset_id: UUID, missing: Sequence[UUID], read_at: datetime
) -> list[UUID]:
    """Set those aside whose record is not in Argilla's database any more, and withdraw their annotations.

    Return those whose record is there: Argilla's search index has lost them. Nothing is concluded about texts
    that are on their way, or that were uploaded into another dataset than this one.

    Raises:
        ArgillaError: Argilla is away.
    """
    if not missing:
        return []
    stored = await lane.argilla.find_stored(argilla_dataset_id, [str(id_) for id_ in missing])
    gone = [id_ for id_ in missing if str(id_) not in stored]
    async with lane.engine.begin() as connection:
        deleted = await pull_repository.lock_deleted(connection, argilla_dataset_id, gone, read_at)
        await connection.run_sync(withdraw_annotations, lane.datasets, lane.name, read_at, deleted)
        await pull_repository.mark_deleted(connection, deleted, DELETED)
    for id_ in deleted:
        log.warning("record.deleted", dataset=lane.name, text_id=str(id_))
    metrics.DELETED_RECORDS.labels(lane.name).inc(len(deleted))
    return [id_ for id_ in missing if str(id_) in stored]
