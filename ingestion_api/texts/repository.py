"""Every query of the ingestion API."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from msgspec.structs import astuple
from psycopg import AsyncConnection, Copy, Cursor
from psycopg.abc import Buffer
from psycopg.copy import Writer
from psycopg.errors import LockNotAvailable, UniqueViolation
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection as EngineConnection

from core.datasets import Datasets, list_adjudications
from core.forgetting import OVERDUE, UNFINISHED, read_unfinished
from core.models import REREADS_CHANNEL, TextStatus
from core.near_duplicates import lock_of
from ingestion_api.enrichment.links import StoredText, link, linked_datasets, lock, run, run_async
from ingestion_api.texts.submissions import NewText

# The name of the connection that stores single texts, in pg_stat_activity.
INTAKE = "ingestion_api intake"

_COLUMNS = "id, dataset, text, claimed_label, score, source, external_id, metadata, enrichment"
_CAST_COLUMNS = _COLUMNS.replace("metadata, enrichment", "cast(metadata as jsonb), cast(enrichment as jsonb)")
# JSON travels as text and is cast on arrival: psycopg would make a JSON string of it.
_COLUMN_TYPES = ("uuid", "text", "text", "text", "float8", "text", "text", "text", "text")
# In binary, a uuid is its bytes.
_COPY_TYPES = ("bytea", *_COLUMN_TYPES[1:])
_JSONB_VERSION = "\1"  # in binary, jsonb is a text behind this mark

# A label that was withdrawn leaves the text uploaded again; a claimed text is still pending to its sender.
_STATUS = """case
    when labels.status in ('labelled', 'disputed') then 'labelled'
    when texts.status = 'uploading' then 'pending'
    when texts.status = 'demo' then 'uploaded'
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
    select texts.id, texts.dataset, texts.text, claimed_label, score, source, external_id, metadata, enrichment,
           {_STATUS} as status, received_at, uploaded_at, attempts, last_error,
           case when labels.status in ('labelled', 'disputed') then labels.labelled_at end as labelled_at
    from texts left join labels on labels.text_id = texts.id
    where texts.id = :id
""")  # noqa: S608 - constants only

# Links point from the later text to the earlier one; twins are so in both directions.
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

# Each has an index of its own, which is counted without the table.
_COUNTS = text(
    " union all ".join(
        f"select '{status}' as status, count(*) from texts where dataset = any(:datasets) and status = '{status}'"  # noqa: S608
        for status in TextStatus
        if status not in {TextStatus.FORGOTTEN, TextStatus.DEMO}
    )
)

# The order of sequence is nearly that of time: one look into the index for each dataset. Gold texts wait for their
# share by design: their age says nothing about the backlog.
_OLDEST_PENDING_SECONDS = text("""
    select max(seconds) from unnest(cast(:datasets as text[])) as names (name)
    cross join lateral (
        select extract(epoch from now() - received_at)::float8 as seconds from texts
        where dataset = name and status = 'pending' and (gold_label is null or page_position is not null)
        order by sequence limit 1
    ) as oldest
""")

# Several jobs of a dataset may stand still for the same reason.
_ALERTS = text("""
    select dataset, code, reason, min(since) as since
    from alerts where dataset = any(:datasets)
    group by dataset, code, reason
    order by since, dataset, code
""")

# Those that are uploaded: the index that has them without the table also has those on their way, which are few.
_OPEN = text("""
    select (select count(*) from texts
            where dataset = any(:datasets) and status in ('uploading', 'uploaded') and completed_at is null)
        - (select count(*) from texts
           where dataset = any(:datasets) and status = 'uploading' and completed_at is null)
""")

# One look into the index for each id: the limit keeps the planner from a join that reads the whole table instead.
_KNOWN = """
    select new.id from unnest(%s::uuid[]) as new (id)
    cross join lateral (select from texts where texts.id = new.id limit 1) as known
"""
# Another transaction may insert the same rows in another order: before Postgres ends one of the two
# (`deadlock_timeout`, one second), this one makes way, and goes on in order of id.
_WAIT_BRIEFLY = "set local lock_timeout = '300ms'"
_WAIT = "set local lock_timeout to default"

# Whether single texts are being stored, by any process on any machine.
_SINGLE_TEXTS_COME = """
    select exists(
        select from pg_stat_activity
        where application_name = %s and state_change > clock_timestamp() - interval '1 second'
    )
"""
# A COPY keeps its core for as long as it inserts, 4 ms at a time (64 KB of rows); what takes turns with it there
# waits. Rows are therefore made ready in pieces, each of which can be a short COPY of its own, with a pause.
_PIECE_ROWS = 64
_PAUSE_SECONDS = 0.0015

# https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format": no flags, no extension; the end.
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"

_NEXT_SEQUENCES = "select nextval('texts_sequence_seq') from generate_series(1, %s)"

# Rows of an upload that is stored whole or not at all; `sequence` keeps their order, which the insert gives up.
_STAGE = """
    create temp table incoming (
        sequence bigint not null default nextval('texts_sequence_seq'),
        id uuid not null, dataset text not null, text text not null, claimed_label text, score float8,
        source text, external_id text, metadata text not null, enrichment text not null
    )
"""

# -> pending, as above. In order of id, so that two uploads of the same texts cannot block each other; the first
# of equal rows wins.
_INSERT_STAGED = f"""
    insert into texts (sequence, {_COLUMNS})
    select distinct on (id) sequence, {_CAST_COLUMNS} from incoming order by id, sequence
    on conflict (id) do nothing
"""  # noqa: S608 - constants only

_LOCK_STAGED = f"""
    select {lock_of("dataset")}
    from (select distinct dataset from incoming where dataset = any(%s) order by dataset) as names
"""  # noqa: S608 - constants only

_NOTE_FRESH = "create temp table if not exists fresh (id uuid not null) on commit delete rows"

_INSERT_STAGED_NOTING = f"""
    with new as ({_INSERT_STAGED} returning id) insert into fresh select id from new
"""  # noqa: S608 - constants only

_READ_FRESH = """
    select id, dataset, text from texts join fresh using (id) where dataset = any(%s) order by sequence
"""


class Stored(NamedTuple):
    """What became of one submission."""

    status: str
    duplicate: bool


async def insert_texts(connection: AsyncConnection, rows: Sequence[NewText], datasets: Datasets) -> list[Stored]:
    """Insert what is not there yet, in one transaction; returns what became of each row, in their order."""
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
        Stored("near_duplicate", s.duplicate) if row.id in held else s for row, s in zip(rows, stored, strict=True)
    ]


async def _insert_texts(connection: AsyncConnection, rows: Sequence[NewText]) -> list[Stored]:
    # In order of id, so that two transactions with the same texts cannot block each other.
    unique = sorted({row.key: row for row in reversed(rows)}.values(), key=lambda row: row.key)
    cursor = connection.cursor(binary=True)
    # As one JSON value: to write eight arrays takes the client twice as long, and Postgres no less.
    await cursor.execute(_INSERT, [orjson.dumps(unique, default=_as_columns).decode()])
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


def _as_columns(row: NewText) -> dict[str, Any]:
    return dict(zip(_COLUMNS.split(", "), (row.id, *astuple(row)[1:]), strict=True))


async def list_twins(connection: EngineConnection, id_: UUID) -> Sequence[RowMapping]:
    """Return the near twins of a text, the most similar first; 20 at most."""
    return (await connection.execute(_TWINS, {"id": id_, "count": _SHOWN_TWINS})).mappings().all()


async def get_text_or_none(connection: EngineConnection, id_: UUID) -> RowMapping | None:
    """Return one text with its status and times; what was forgotten has `status` `forgotten`, and nothing else."""
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
            late = read_unfinished(row)
            alerts.append({"dataset": late.dataset, "code": OVERDUE, "reason": late.reason, "since": late.since})
    return alerts


class _Buffer(Writer):
    """Keeps what would be sent to Postgres."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: Buffer) -> None:
        self.parts.append(bytes(data))

    def finish(self, exc: BaseException | None = None) -> None:
        pass


@dataclass(frozen=True, slots=True)
class ReadyRows:
    """Rows that differ from each other, and what COPY sends of them, between head and end, in pieces."""

    rows: dict[bytes, NewText]  # by key
    pieces: list[bytes]


def encode(cursor: Cursor[Any], rows: Iterable[NewText]) -> ReadyRows:
    """Make rows ready for `copy_new`, the first of equal ones. Sends nothing, and may run beside it.

    `cursor` is one that nothing else uses; it tells how values are written.
    """
    unique: dict[bytes, NewText] = {}
    for row in rows:
        unique.setdefault(row.key, row)
    different = list(unique.values())
    starts = range(0, len(different), _PIECE_ROWS)
    return ReadyRows(unique, [_encode_piece(cursor, different[start : start + _PIECE_ROWS]) for start in starts])


def _encode_piece(cursor: Cursor[Any], rows: Sequence[NewText]) -> bytes:
    buffer = _Buffer()
    with Copy(cursor, binary=True, writer=buffer) as copy:
        copy.set_types(_COPY_TYPES)
        for row in rows:
            copy.write_row(_as_copied(row))
    return b"".join(buffer.parts)[len(_COPY_HEAD) : -len(_COPY_END)]


def copy_new(cursor: Cursor[Any], ready: ReadyRows, *, expect_duplicates: bool) -> int:
    """Copy the rows that are not there yet; returns how many.

    Looking first which rows are there costs half as much as copying them: with `expect_duplicates` alone.
    """
    if not expect_duplicates:
        cursor.execute(_WAIT_BRIEFLY)  # also begins the transaction, so that what follows is a savepoint in it
        with suppress(UniqueViolation, LockNotAvailable), cursor.connection.transaction():
            _copy_pieces(cursor, ready.pieces)
            return len(ready.rows)
    return _copy_unknown(cursor, dict(ready.rows))


def _copy_pieces(cursor: Cursor[Any], pieces: Sequence[bytes]) -> None:
    (single_texts_come,) = cursor.execute(_SINGLE_TEXTS_COME, [INTAKE]).fetchone() or (False,)
    if not single_texts_come:
        _copy_encoded(cursor, pieces)
        return
    for piece in pieces:
        _copy_encoded(cursor, [piece])
        time.sleep(_PAUSE_SECONDS)


def _copy_encoded(cursor: Cursor[Any], pieces: Iterable[bytes]) -> None:
    # -> pending, as above.
    with cursor.copy(f"copy texts ({_COLUMNS}) from stdin (format binary)") as copy:
        for part in (_COPY_HEAD, *pieces, _COPY_END):
            copy.write(part)


def _copy_unknown(cursor: Cursor[Any], rows: dict[bytes, NewText]) -> int:
    cursor.execute(_WAIT)
    while True:
        # Planned each time: a plan that was kept from when the table was empty would read all of it.
        cursor.execute(_KNOWN, [_uuid_array(rows)], prepare=False, binary=True)
        for (id_,) in cursor.fetchall():
            del rows[id_.bytes]
        with suppress(UniqueViolation), cursor.connection.transaction():
            _copy_in_order_of_id(cursor, list(rows.values()))
            return len(rows)
        # Another session has stored one of them since; the next look shows it.


def _uuid_array(keys: Iterable[bytes]) -> str:
    return "{" + b"".join(keys).hex(",", 16) + "}"


def _copy_in_order_of_id(cursor: Cursor[Any], rows: Sequence[NewText]) -> None:
    """Copy rows so that two transactions with the same texts cannot block each other; they keep their sequence."""
    sequences = cursor.execute(_NEXT_SEQUENCES, [len(rows)], binary=True).fetchall()
    numbered = sorted(zip(rows, sequences, strict=True), key=lambda pair: pair[0].key)
    # -> pending, as above.
    with cursor.copy(f"copy texts ({_COLUMNS}, sequence) from stdin (format binary)") as copy:
        copy.set_types((*_COPY_TYPES, "int8"))
        for row, sequence in numbered:
            copy.write_row((*_as_copied(row), *sequence))


def _as_copied(row: NewText) -> tuple[Any, ...]:
    return (*astuple(row)[:-2], _JSONB_VERSION + row.metadata, _JSONB_VERSION + row.enrichment)


def create_stage(cursor: Cursor[Any]) -> None:
    """Make the temporary table that `stage_texts` fills; it lasts as long as the connection."""
    cursor.execute("drop table if exists pg_temp.incoming")
    cursor.execute(_STAGE)


def stage_texts(cursor: Cursor[Any], rows: Iterable[NewText]) -> None:
    """Copy rows into the temporary table."""
    with cursor.copy(f"copy incoming ({_COLUMNS}) from stdin (format binary)") as copy:
        copy.set_types(_COPY_TYPES)
        for row in rows:
            copy.write_row(astuple(row))


def insert_staged(cursor: Cursor[Any], datasets: Datasets) -> int:
    """Insert the staged rows that are not there yet, and empty the stage; returns how many were new."""
    if names := linked_datasets(datasets):
        accepted = _insert_linking(cursor, datasets, sorted(names))
    else:
        cursor.execute(_INSERT_STAGED)
        accepted = cursor.rowcount
    cursor.execute("truncate incoming")
    return accepted


def _insert_linking(cursor: Cursor[Any], datasets: Datasets, names: list[str]) -> int:
    cursor.execute(_LOCK_STAGED, [names])
    cursor.execute(_NOTE_FRESH)
    cursor.execute(_INSERT_STAGED_NOTING)
    accepted = cursor.rowcount
    # A cursor in the server: with `on_error=abort` the new texts may be more than the memory takes.
    with cursor.connection.cursor("fresh") as fresh:
        fresh.execute(_READ_FRESH, [names])
        run(link((StoredText(*row) for row in fresh), datasets), cursor)
    return accepted


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
        "channel": REREADS_CHANNEL,
    }
    return (await connection.execute(_NOTE_REREAD, values)).first() is not None
