"""Queries of single texts, of the queue, and of webhooks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from msgspec.structs import astuple
from psycopg import AsyncConnection
from sqlalchemy import RowMapping, select, text
from sqlalchemy.ext.asyncio import AsyncConnection as EngineConnection

from core.datasets import Datasets, list_adjudications
from core.forgetting.repository import UNFINISHED
from core.forgetting.service import OVERDUE, explain_unfinished
from core.models import REREADS_CHANNEL, DatasetRow, TextStatus, Webhook
from ingestion_api.enrichment.repository import StoredText, link, linked_datasets, lock, run_async
from ingestion_api.texts.submissions import NewText

# The name of the connection that stores single texts, in pg_stat_activity.
INTAKE = "ingestion_api intake"

COLUMNS = "id, dataset, text, claimed_label, score, source, external_id, metadata, enrichment"
CAST_COLUMNS = COLUMNS.replace("metadata, enrichment", "cast(metadata as jsonb), cast(enrichment as jsonb)")
# JSON is sent as text and cast in Postgres: psycopg would encode it as a JSON string.
COLUMN_TYPES = ("uuid", "text", "text", "text", "float8", "text", "text", "text", "text")
# A text whose label was withdrawn is shown as uploaded, a claimed one (`uploading`) as pending.
_STATUS = """case
    when labels.status in ('labelled', 'disputed') then 'labelled'
    when texts.status = 'uploading' then 'pending'
    when texts.status = 'demo' then 'uploaded'
    else texts.status end"""

_TYPED_COLUMNS = ", ".join(map(" ".join, zip(COLUMNS.split(", "), COLUMN_TYPES, strict=True)))

# -> pending: a new text waits for its upload. Existing rows are not changed.
_INSERT = f"""
    insert into texts ({COLUMNS})
    select {CAST_COLUMNS}
    from json_to_recordset(%s::json) as new ({_TYPED_COLUMNS})
    on conflict (id) do nothing
    returning id
"""  # noqa: S608 - constants only

_STATUSES = f"""
    select texts.id, {_STATUS} as status
    from texts left join labels on labels.text_id = texts.id
    where texts.id = any(%s)
"""  # noqa: S608 - constants only

_TEXT = text(f"""
    select texts.id, texts.dataset, texts.text, claimed_label, score, source, external_id, metadata, enrichment,
           {_STATUS} as status, received_at, uploaded_at, attempts, last_error,
           case when labels.status in ('labelled', 'disputed') then labels.labelled_at end as labelled_at
    from texts left join labels on labels.text_id = texts.id
    where texts.id = :id
""")  # noqa: S608 - constants only

# Links point from the later text to the earlier one; both directions are read.
_TWINS = text("""
    select id, similarity from (
        (select twin_id as id, similarity from near_duplicates where text_id = :id
         order by similarity desc limit :count)
        union all
        (select text_id, similarity from near_duplicates where twin_id = :id order by similarity desc limit :count)
    ) as twins
    where exists (select from texts where texts.id = twins.id and status <> 'forgotten')
    order by similarity desc, id limit :count
""")
_SHOWN_TWINS = 20

# Each status has its own index, which is counted without reading the table.
_COUNTS = text(
    " union all ".join(
        f"select '{status}' as status, count(*) from texts where dataset = any(:datasets) and status = '{status}'"  # noqa: S608
        for status in TextStatus
        if status not in {TextStatus.FORGOTTEN, TextStatus.DEMO}
    )
)

# `sequence` is nearly in order of time: one index lookup for each dataset. Gold texts wait by design, so their age
# says nothing about the backlog.
_OLDEST_PENDING_SECONDS = text("""
    select max(seconds) from unnest(cast(:datasets as text[])) as names (name)
    cross join lateral (
        select extract(epoch from now() - received_at)::float8 as seconds from texts
        where dataset = name and status = 'pending' and (gold_label is null or page_position is not null)
        order by sequence limit 1
    ) as oldest
""")

# Several jobs of a dataset may be blocked for the same reason.
_ALERTS = text("""
    select dataset, code, reason, min(since) as since
    from alerts where dataset = any(:datasets)
    group by dataset, code, reason
    order by since, dataset, code
""")

# The index that counts uploaded texts also has the few that are being uploaded: these are subtracted.
_OPEN = text("""
    select (select count(*) from texts
            where dataset = any(:datasets) and status in ('uploading', 'uploaded') and completed_at is null)
        - (select count(*) from texts
           where dataset = any(:datasets) and status = 'uploading' and completed_at is null)
""")


class StoreResult(NamedTuple):
    """The result of storing one submission."""

    status: str
    duplicate: bool


async def insert_texts(
    connection: AsyncConnection, rows: Sequence[NewText], datasets: Datasets
) -> list[StoreResult]:
    """Insert the rows that are not stored yet, in one transaction; return each row's result, in order."""
    names = {row.dataset for row in rows} & linked_datasets(datasets)
    if not names:
        return await _insert_texts(connection, rows)
    async with connection.transaction():
        await run_async(lock(names), connection)
        stored = await _insert_texts(connection, rows)
        outcomes = zip(rows, stored, strict=True)
        fresh = [
            StoredText(r.id, r.dataset, r.text) for r, s in outcomes if not s.duplicate and r.dataset in names
        ]
        held = await run_async(link(fresh, datasets), connection)
    return [
        StoreResult("near_duplicate", s.duplicate) if row.id in held else s
        for row, s in zip(rows, stored, strict=True)
    ]


async def _insert_texts(connection: AsyncConnection, rows: Sequence[NewText]) -> list[StoreResult]:
    # In order of id: two transactions with the same texts cannot deadlock.
    unique = sorted({row.key: row for row in reversed(rows)}.values(), key=lambda row: row.key)
    cursor = connection.cursor(binary=True)
    # As one JSON value: writing nine arrays takes the client twice as long, and Postgres as long.
    await cursor.execute(_INSERT, [orjson.dumps(unique, default=_as_columns).decode()])
    new = {id_ for (id_,) in await cursor.fetchall()}
    statuses: dict[UUID, str] = {}
    if known := [row.id for row in unique if row.id not in new]:
        await cursor.execute(_STATUSES, [known])
        statuses = dict(await cursor.fetchall())
    stored = []
    for row in rows:
        is_new = row.id in new
        new.discard(row.id)  # a repetition within the batch is a duplicate
        stored.append(StoreResult(statuses.get(row.id, "pending"), duplicate=not is_new))
    return stored


def _as_columns(row: NewText) -> dict[str, Any]:
    return dict(zip(COLUMNS.split(", "), (row.id, *astuple(row)[1:]), strict=True))


async def list_twins(connection: EngineConnection, id_: UUID) -> Sequence[RowMapping]:
    """Return the near duplicates of a text, the most similar first; 20 at most."""
    return (await connection.execute(_TWINS, {"id": id_, "count": _SHOWN_TWINS})).mappings().all()


async def get_text_or_none(connection: EngineConnection, id_: UUID) -> RowMapping | None:
    """Return a text with its status and times; of a forgotten text only the status is left."""
    return (await connection.execute(_TEXT, {"id": id_})).mappings().one_or_none()


async def count_queue(connection: EngineConnection, datasets: Datasets) -> dict[str, Any]:
    """Count the texts of these datasets by status."""
    names = {"datasets": list(datasets)}
    counts: dict[str, int] = dict((await connection.execute(_COUNTS, names)).tuples().all())
    return {
        **{status: count for status, count in counts.items() if status != TextStatus.NEAR_DUPLICATE},
        "near_duplicates": counts[TextStatus.NEAR_DUPLICATE],
        "oldest_pending_seconds": await connection.scalar(_OLDEST_PENDING_SECONDS, names),
        "open_records": await connection.scalar(_OPEN, names),
    }


async def list_alerts(
    connection: EngineConnection, datasets: Datasets, forget_seconds: float
) -> list[dict[str, Any]]:
    """Return what blocks these datasets, and their adjudication, until an operator acts.

    A forget request that is not finished after `forget_seconds` is such an alert, whether an uploader runs or not.
    """
    names = [*datasets, *list_adjudications(datasets)]
    alerts = [dict(row) for row in (await connection.execute(_ALERTS, {"datasets": names})).mappings()]
    for row in await connection.execute(UNFINISHED, {"older_than_seconds": forget_seconds}):
        if row.dataset in names:
            reason = explain_unfinished(row)
            alerts.append({"dataset": row.dataset, "code": OVERDUE, "reason": reason, "since": row.since})
    return alerts


# Only for our texts, in their present Argilla dataset: other events change nothing.
_NOTE_REREAD = text("""
with noted as (
    insert into rereads (text_id, dataset, argilla_record_id, event_at, received_at, stamp)
    select texts.id, texts.dataset, :argilla_record_id, :event_at, clock_timestamp(), gen_random_uuid()
    from texts join datasets on datasets.name = texts.dataset
    where texts.id = :text_id and datasets.argilla_dataset_id = :argilla_dataset_id
    on conflict (text_id) do update
    set argilla_record_id = excluded.argilla_record_id, stamp = excluded.stamp,
        event_at = greatest(rereads.event_at, excluded.event_at)
    returning dataset
)
select pg_notify(:channel, dataset) from noted
""")


async def note_reread(
    connection: EngineConnection,
    text_id: UUID,
    argilla_record_id: UUID,
    argilla_dataset_id: UUID,
    event_at: datetime,
) -> bool:
    """Request a refresh of a text's annotations; return False if the text is not ours."""
    values = {
        "text_id": text_id,
        "argilla_record_id": argilla_record_id,
        "argilla_dataset_id": argilla_dataset_id,
        "event_at": event_at,
        "channel": REREADS_CHANNEL,
    }
    return (await connection.execute(_NOTE_REREAD, values)).first() is not None


async def list_argilla_ids(connection: EngineConnection) -> dict[str, UUID]:
    """Return the id in Argilla of each dataset that has one, by its name."""
    query = select(DatasetRow.name, DatasetRow.argilla_dataset_id).where(
        DatasetRow.argilla_dataset_id.is_not(None)
    )
    rows = await connection.execute(query)
    return {name: id_ for name, id_ in rows if id_ is not None}


async def list_webhook_secrets(connection: EngineConnection) -> list[str]:
    """Return the secrets that Argilla's webhooks sign with."""
    return list(await connection.scalars(select(Webhook.secret)))
