"""Every query of the ingestion API."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from psycopg import AsyncConnection, Cursor
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection as EngineConnection

from core.datasets import Datasets
from core.rereads import CHANNEL
from ingestion_api.submissions import NewText

_COLUMNS = "id, dataset, text, claimed_label, score, source, external_id, metadata"
_CAST_COLUMNS = _COLUMNS.replace("metadata", "cast(metadata as jsonb)")
# Metadata travels as text and is cast on arrival: psycopg would make a JSON string of it.
_COLUMN_TYPES = ("uuid", "text", "text", "text", "float8", "text", "text", "text")

# A label that was withdrawn leaves the text uploaded again; a claimed text is still pending to its sender.
_STATUS = """case
    when labels.status in ('labelled', 'disputed') then 'labelled'
    when texts.status = 'uploading' then 'pending'
    else texts.status end"""

_TYPED_COLUMNS = ", ".join(map(" ".join, zip(_COLUMNS.split(", "), _COLUMN_TYPES, strict=True)))

# -> pending: a new text waits for its upload. What is there already stays as it is.
_INSERT = f"""
    insert into texts ({_COLUMNS})
    select {_CAST_COLUMNS}
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
    select texts.id, texts.dataset, texts.text, claimed_label, score, source, external_id, metadata,
           {_STATUS} as status, received_at, uploaded_at, attempts, last_error,
           case when labels.status in ('labelled', 'disputed') then labels.labelled_at end as labelled_at
    from texts left join labels on labels.text_id = texts.id
    where texts.id = :id
""")  # noqa: S608 - constants only

_QUEUE = text("""
    select dataset, status, count(*) as texts, min(received_at) as oldest_received_at, now() as now
    from texts group by dataset, status
""")

_COMPLETED = text("select count(*) from labels where dataset = :dataset and annotations >= :answers_wanted")

# Rows of a bulk upload on their way; `sequence` keeps their order, which the insert below gives up.
_STAGE = """
    create temp table incoming (
        sequence bigint not null default nextval('texts_sequence_seq'),
        id uuid not null, dataset text not null, text text not null, claimed_label text, score float8,
        source text, external_id text, metadata text not null
    )
"""

# -> pending, as above. In order of id, so that two uploads of the same texts cannot block each other; the first
# of equal rows wins.
_INSERT_STAGED = f"""
    insert into texts (sequence, {_COLUMNS})
    select distinct on (id) sequence, {_CAST_COLUMNS} from incoming order by id, sequence
    on conflict (id) do nothing
"""  # noqa: S608 - constants only


class Stored(NamedTuple):
    """What became of one submission."""

    status: str
    duplicate: bool


async def insert_texts(connection: AsyncConnection, rows: Sequence[NewText]) -> list[Stored]:
    """Insert what is not there yet, in one statement; returns what became of each row, in their order."""
    # In order of id, so that two transactions with the same texts cannot block each other.
    unique = sorted({row.id: row for row in reversed(rows)}.values(), key=lambda row: row.id)
    cursor = connection.cursor(binary=True)
    # As one JSON value: to write eight arrays takes the client twice as long, and Postgres no less.
    await cursor.execute(_INSERT, [orjson.dumps(unique).decode()])
    new = {id_ for (id_,) in await cursor.fetchall()}
    statuses: dict[UUID, str] = {}
    if known := [row.id for row in unique if row.id not in new]:
        await cursor.execute(_STATUSES, [known])
        statuses = dict(await cursor.fetchall())
    stored = []
    for row in rows:
        is_new = row.id in new
        new.discard(row.id)  # the same text again in this batch is a duplicate
        stored.append(Stored(statuses.get(row.id, "pending"), duplicate=not is_new))
    return stored


async def get_text_or_none(connection: EngineConnection, id_: UUID) -> RowMapping | None:
    """Return one text with its status and times."""
    return (await connection.execute(_TEXT, {"id": id_})).mappings().one_or_none()


async def count_queue(connection: EngineConnection, datasets: Datasets) -> dict[str, Any]:
    """Count the texts of these datasets by status."""
    counts = dict.fromkeys(("pending", "uploading", "uploaded", "failed"), 0)
    oldest: datetime | None = None
    now: datetime | None = None
    for row in await connection.execute(_QUEUE):
        if row.dataset not in datasets:
            continue
        counts[row.status] += row.texts
        if row.status == "pending" and (oldest is None or row.oldest_received_at < oldest):
            oldest, now = row.oldest_received_at, row.now
    completed = 0
    for name, dataset in datasets.items():
        values = {"dataset": name, "answers_wanted": dataset.answers_wanted}
        completed += (await connection.execute(_COMPLETED, values)).scalar_one()
    return counts | {
        "oldest_pending_seconds": (now - oldest).total_seconds() if now and oldest else None,
        "open_records": max(counts["uploaded"] - completed, 0),
    }


def create_stage(cursor: Cursor[Any]) -> None:
    """Make the temporary table that `stage_texts` fills; it lasts as long as the connection."""
    cursor.execute("drop table if exists pg_temp.incoming")
    cursor.execute(_STAGE)


def stage_texts(cursor: Cursor[Any], rows: Iterable[NewText]) -> None:
    """Copy rows into the temporary table."""
    with cursor.copy(f"copy incoming ({_COLUMNS}) from stdin (format binary)") as copy:
        copy.set_types(_COLUMN_TYPES)
        for row in rows:
            copy.write_row(_values(row))


def insert_staged(cursor: Cursor[Any]) -> int:
    """Insert the staged rows that are not there yet, and empty the stage; returns how many were new."""
    cursor.execute(_INSERT_STAGED)
    accepted = cursor.rowcount
    cursor.execute("truncate incoming")
    return accepted


def _values(row: NewText) -> tuple[Any, ...]:
    return (
        row.id,
        row.dataset,
        row.text,
        row.claimed_label,
        row.score,
        row.source,
        row.external_id,
        row.metadata,
    )


# A text of ours, in the dataset in Argilla where it is now; else the event is about something else.
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
    """Note that a text's annotations are to be read again; False when it is not one of ours."""
    values = {
        "text_id": text_id,
        "argilla_record_id": argilla_record_id,
        "argilla_dataset_id": argilla_dataset_id,
        "event_at": event_at,
        "channel": CHANNEL,
    }
    return (await connection.execute(_NOTE_REREAD, values)).first() is not None
