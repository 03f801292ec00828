"""The queries of the way back: refresh requests, sweeps, counts.

The caller holds the transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from core.text_identity import BEFORE_ALL

_REFRESH_REQUESTS = text("""
select text_id, argilla_record_id, received_at, stamp, clock_timestamp() as read_at from rereads
where dataset = :dataset
order by received_at
limit :count
""")

# A request that was renewed since it was listed has another stamp, and stays.
_FINISH_REFRESH_REQUESTS = text("""
with done as (
    delete from rereads using unnest(cast(:ids as uuid[]), cast(:stamps as uuid[])) as done (id, stamp)
    where rereads.text_id = done.id and rereads.stamp = done.stamp
    returning rereads.event_at
)
update datasets set events_applied_at = greatest(events_applied_at, (select max(event_at) from done))
where name = :dataset
""")

# Texts that were in this dataset before the read; one in flight, or of another dataset, is not deleted.
_LOCK_DELETED = text("""
select texts.id from texts join datasets on datasets.name = texts.dataset
where texts.id = any(:ids) and texts.uploaded_at < :read_at
    -- A pending one without an error waits to be shown again: see repair.show_again.
    and (texts.status = 'uploaded' or (texts.status = 'pending' and texts.last_error is null))
    and datasets.argilla_dataset_id = :argilla_dataset_id
    and texts.uploaded_at >= coalesce(datasets.argilla_dataset_at, '-infinity')
order by texts.id
for no key update of texts
""")

# uploaded, pending -> failed: the record was deleted in Argilla
_MARK_DELETED = text("""
update texts set status = 'failed', last_error = :words, page_position = null where id = any(:ids)
""")

_PAGE = text("""
select id, clock_timestamp() as read_at from texts
where dataset = :dataset and status = 'uploaded' and id > :after
order by id
limit :count
""")

_USERNAMES = text("""
select distinct on (annotator_id) annotator_id, annotator from annotations
where annotator_id = any(:ids)
order by annotator_id, seen_at desc
""")

# Null: `sweep_position`, no sweep is under way; `seconds_since_swept`, never swept; `refill_position`, no refill.
_SWEEP_STATE = text("""
select activity_seen_at, events_applied_at, difference_seen, sweep_position,
    cast(extract(epoch from clock_timestamp() - swept_at) as float8) as seconds_since_swept, refill_position
from datasets where name = :name
""")

_BEGIN_SWEEP = text("""
update datasets set sweep_position = :position, sweep_activity_at = :activity, sweep_difference = :difference
where name = :name
""").bindparams(bindparam("difference", type_=JSONB(none_as_null=True)))

_ADVANCE_SWEEP = text("update datasets set sweep_position = :position where name = :name")

_END_SWEEP = text("""
update datasets
set activity_seen_at = sweep_activity_at, difference_seen = sweep_difference, swept_at = clock_timestamp(),
    sweep_position = null, sweep_activity_at = null, sweep_difference = null
where name = :name
""")

_ANNOTATION_COUNTS = text("""
select annotations.annotator, annotations.status, count(*)
from annotations join texts on texts.id = annotations.text_id join datasets on datasets.name = texts.dataset
where texts.dataset = :dataset and annotations.withdrawn_at is null
    and annotations.argilla_dataset_id = datasets.argilla_dataset_id
group by annotations.annotator, annotations.status
""")

_UPLOADED_COUNT = text("select count(*) from texts where dataset = :dataset and status = 'uploaded'")

_MOVING = text("""
select exists (select from rereads where dataset = :dataset)
    or exists (select from texts where dataset = :dataset and status = 'uploading')
    or exists (select from datasets where name = :dataset and refill_position is not null)
    or exists (select from forget_requests where dataset = :dataset and removed_at is null)
""")

# A text without annotations looks like one whose last annotation was just deleted, so it does not count.
_OLDER = text("""
select count(*) from (
    select from annotations where text_id = any(:ids) group by text_id
    having max(updated_at) filter (where withdrawn_at is null) < :moment
) as texts
""")

# Numbers of responses by "annotator/status", and of records by "stored" and "visible".
Counts = dict[str, int]


async def list_refresh_requests(connection: AsyncConnection, dataset: str, count: int) -> Sequence[Row[Any]]:
    """Return a dataset's oldest refresh requests, each with `read_at`, Postgres' clock."""
    return (await connection.execute(_REFRESH_REQUESTS, {"dataset": dataset, "count": count})).all()


async def finish_refresh_requests(connection: AsyncConnection, dataset: str, requests: Sequence[Row[Any]]) -> None:
    """Delete refresh requests, except those that were renewed since they were listed."""
    values = {"ids": [one.text_id for one in requests], "stamps": [one.stamp for one in requests]}
    await connection.execute(_FINISH_REFRESH_REQUESTS, {"dataset": dataset, **values})


async def lock_deleted(
    connection: AsyncConnection, argilla_dataset_id: UUID, ids: Sequence[UUID], read_at: datetime
) -> list[UUID]:
    """Lock the texts among these that were in this dataset of Argilla's before the read; return them."""
    values = {"ids": list(ids), "argilla_dataset_id": argilla_dataset_id, "read_at": read_at}
    return list((await connection.scalars(_LOCK_DELETED, values)).all())


async def mark_deleted(connection: AsyncConnection, ids: Sequence[UUID], words: str) -> None:
    """Set locked texts aside, whose records are gone."""
    await connection.execute(_MARK_DELETED, {"ids": list(ids), "words": words})


async def get_page(connection: AsyncConnection, dataset: str, after: UUID, count: int) -> Sequence[Row[Any]]:
    """Return the uploaded texts that follow on `after` by id, each with `read_at`, Postgres' clock."""
    return (await connection.execute(_PAGE, {"dataset": dataset, "after": after, "count": count})).all()


async def list_held_usernames(connection: AsyncConnection, user_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return the names under which we know annotators that Argilla does not list any more."""
    rows = await connection.execute(_USERNAMES, {"ids": list(user_ids)})
    return {row.annotator_id: row.annotator for row in rows}


async def get_sweep_state(connection: AsyncConnection, dataset: str) -> Row[Any]:
    """Return the state of the sweeps of a dataset; it must be prepared."""
    return (await connection.execute(_SWEEP_STATE, {"name": dataset})).one()


async def begin_sweep(
    connection: AsyncConnection, dataset: str, activity: datetime, difference: Counts | None
) -> None:
    """Store the start of a sweep, and Argilla's state before it."""
    values = {"position": BEFORE_ALL, "activity": activity, "difference": difference}
    await connection.execute(_BEGIN_SWEEP, {"name": dataset, **values})


async def advance_sweep(connection: AsyncConnection, dataset: str, position: UUID) -> None:
    """Store how far the sweep has come."""
    await connection.execute(_ADVANCE_SWEEP, {"name": dataset, "position": position})


async def end_sweep(connection: AsyncConnection, dataset: str) -> None:
    """Store that the sweep is complete."""
    await connection.execute(_END_SWEEP, {"name": dataset})


async def count_older(connection: AsyncConnection, ids: Sequence[UUID], moment: datetime) -> int:
    """Return how many of these texts have annotations, none of which was changed since."""
    return await connection.scalar(_OLDER, {"ids": list(ids), "moment": moment}) or 0


async def count_held(connection: AsyncConnection, dataset: str) -> Counts | None:
    """Count our annotations and texts; None while texts are in flight to or from Argilla."""
    values = {"dataset": dataset}
    if await connection.scalar(_MOVING, values):
        return None
    counts = {f"{name}/{status}": n for name, status, n in await connection.execute(_ANNOTATION_COUNTS, values)}
    uploaded = await connection.scalar(_UPLOADED_COUNT, values)
    return counts | {"stored": uploaded, "visible": uploaded}


_REFILL_TEXTS = 1000

_REFILL_POSITION = text("select refill_position from datasets where name = :dataset")

_REFILL_STEP = text("""
select id from texts where dataset = :dataset and status = 'uploaded' and id > :position order by id limit :count
""")

# uploaded -> pending: the dataset in Argilla that held the record is no more
_REQUEUE = text("""
update texts set status = 'pending', retry_at = null, page_position = coalesce(page_position, sequence)
from datasets
where texts.id = any(:ids) and texts.status = 'uploaded' and datasets.name = texts.dataset
    and (texts.uploaded_at is null or texts.uploaded_at < datasets.argilla_dataset_at)
""")

_ADVANCE_REFILL = text("update datasets set refill_position = :position where name = :dataset")

# uploaded -> pending: the record is in Argilla's database, but not in its index; a second PUT indexes it
_SHOW_AGAIN = text("""
update texts set status = 'pending', retry_at = null, page_position = coalesce(page_position, sequence)
from datasets
where texts.id = any(:ids) and texts.status = 'uploaded' and datasets.name = texts.dataset
    and datasets.argilla_dataset_id = :argilla_dataset_id
""")

_OURS = text("select id from texts where dataset = :dataset and id = any(:ids)")


async def get_refill_position(connection: AsyncConnection, dataset: str) -> UUID | None:
    """Return up to which id the texts of a lost dataset are in the queue again; None: no refill is under way."""
    position: UUID | None = await connection.scalar(_REFILL_POSITION, {"dataset": dataset})
    return position


async def refill(connection: AsyncConnection, dataset: str, position: UUID) -> int:
    """Put the next 1000 uploaded texts behind `position` back into the queue; return how many were lost."""
    values = {"dataset": dataset, "position": position, "count": _REFILL_TEXTS}
    ids = list((await connection.scalars(_REFILL_STEP, values)).all())
    await connection.execute(_ADVANCE_REFILL, {"dataset": dataset, "position": ids[-1] if ids else None})
    return (await connection.execute(_REQUEUE, {"ids": ids})).rowcount


async def show_again(connection: AsyncConnection, argilla_dataset_id: UUID, ids: Sequence[UUID]) -> int:
    """Put texts back into the queue whose records this dataset of Argilla's does not show; return how many."""
    values = {"ids": list(ids), "argilla_dataset_id": argilla_dataset_id}
    return (await connection.execute(_SHOW_AGAIN, values)).rowcount


async def list_ours(connection: AsyncConnection, dataset: str, ids: Sequence[UUID]) -> Sequence[UUID]:
    """Return those of the ids that are texts of the dataset."""
    return (await connection.scalars(_OURS, {"dataset": dataset, "ids": list(ids)})).all()
