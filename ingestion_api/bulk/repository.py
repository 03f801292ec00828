"""Every query of bulk uploads: COPY into `texts`, directly or by way of a temporary table."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from msgspec.structs import astuple
from psycopg import Copy, Cursor
from psycopg.abc import Buffer
from psycopg.copy import Writer
from psycopg.errors import LockNotAvailable, UniqueViolation

from core.datasets import Datasets
from core.models.texts import near_duplicates_lock
from ingestion_api.enrichment.repository import StoredText, link, linked_datasets, run
from ingestion_api.texts.repository import CAST_COLUMNS, COLUMN_TYPES, COLUMNS, INTAKE
from ingestion_api.texts.submissions import NewText

# In binary, a uuid is its bytes.
_COPY_TYPES = dict(zip(COLUMNS.split(", "), ("bytea", *COLUMN_TYPES[1:]), strict=True))
_JSONB_VERSION = "\1"  # in binary, jsonb is a text behind this mark
# What a column holds that a COPY leaves out; None where it is not listed.
_DEFAULTS = {"metadata": "{}", "enrichment": "{}"}

# One look into the index for each id: the limit keeps the planner from a join that reads the whole table instead.
_KNOWN = """
    select new.id from unnest(%s::uuid[]) as new (id)
    cross join lateral (select from texts where texts.id = new.id limit 1) as known
"""
# Another transaction may insert the same rows in another order. This one rolls back before Postgres ends one of
# them (`deadlock_timeout`, one second), and then inserts in order of id.
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
# waits. So rows are encoded in pieces, each of which can be a short COPY, with a pause after it.
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
    insert into texts (sequence, {COLUMNS})
    select distinct on (id) sequence, {CAST_COLUMNS} from incoming order by id, sequence
    on conflict (id) do nothing
"""  # noqa: S608 - constants only

_LOCK_STAGED = f"""
    select {near_duplicates_lock("dataset")}
    from (select distinct dataset from incoming where dataset = any(%s) order by dataset) as names
"""  # noqa: S608 - constants only

_NOTE_FRESH = "create temp table if not exists fresh (id uuid not null) on commit delete rows"

_INSERT_STAGED_NOTING = f"""
    with new as ({_INSERT_STAGED} returning id) insert into fresh select id from new
"""  # noqa: S608 - constants only

_READ_FRESH = """
    select id, dataset, text from texts join fresh using (id) where dataset = any(%s) order by sequence
"""


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
    columns: list[str]
    pieces: list[bytes]


def encode(cursor: Cursor[Any], rows: Iterable[NewText]) -> ReadyRows:
    """Encode rows for `copy_new`, the first of equal ones. Sends nothing, and may run while `copy_new` runs.

    Columns that have their default in each row are left out: three such columns would take Postgres a fifth of the
    time of a COPY. `cursor` defines how values are encoded; nothing else may use it meanwhile.
    """
    unique: dict[bytes, NewText] = {}
    for row in rows:
        unique.setdefault(row.key, row)
    different = list(unique.values())
    given = [place for place, field in enumerate(NewText.__struct_fields__) if _is_given(field, different)]
    columns = [list(_COPY_TYPES)[place] for place in given]
    types = [_COPY_TYPES[name] for name in columns]
    pieces = []
    for start in range(0, len(different), _PIECE_ROWS):
        cells = map(itemgetter(*given), map(_as_copied, different[start : start + _PIECE_ROWS]))
        pieces.append(_encode_piece(cursor, types, cells))
    return ReadyRows(unique, columns, pieces)


def _is_given(field: str, rows: Iterable[NewText]) -> bool:
    default = _DEFAULTS.get(field)
    return any(getattr(row, field) != default for row in rows)


def _encode_piece(cursor: Cursor[Any], types: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> bytes:
    buffer = _Buffer()
    with Copy(cursor, binary=True, writer=buffer) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
    return b"".join(buffer.parts)[len(_COPY_HEAD) : -len(_COPY_END)]


def copy_new(cursor: Cursor[Any], ready: ReadyRows, *, expect_duplicates: bool) -> int:
    """Copy the rows that are not there yet; returns how many.

    Looking first which rows are there costs half as much as copying them: with `expect_duplicates` alone.
    """
    if not ready.rows:
        return 0
    if not expect_duplicates:
        cursor.execute(_WAIT_BRIEFLY)  # also begins the transaction, so that what follows is a savepoint in it
        with suppress(UniqueViolation, LockNotAvailable), cursor.connection.transaction():
            _copy_pieces(cursor, ready)
            return len(ready.rows)
    return _copy_unknown(cursor, dict(ready.rows))


def _copy_pieces(cursor: Cursor[Any], ready: ReadyRows) -> None:
    (single_texts_come,) = cursor.execute(_SINGLE_TEXTS_COME, [INTAKE]).fetchone() or (False,)
    if not single_texts_come:
        _copy_encoded(cursor, ready.columns, ready.pieces)
        return
    for piece in ready.pieces:
        _copy_encoded(cursor, ready.columns, [piece])
        time.sleep(_PAUSE_SECONDS)


def _copy_encoded(cursor: Cursor[Any], columns: Iterable[str], pieces: Iterable[bytes]) -> None:
    # In one piece: after each write this thread waits for the interpreter, which the one that reads rows holds.
    # -> pending, as above.
    with cursor.copy(f"copy texts ({', '.join(columns)}) from stdin (format binary)") as copy:
        copy.write(b"".join((_COPY_HEAD, *pieces, _COPY_END)))


def _copy_unknown(cursor: Cursor[Any], rows: dict[bytes, NewText]) -> int:
    cursor.execute(_WAIT)
    while True:
        # Planned each time: a plan that was kept from when the table was empty would read all of it.
        ids = "{" + b"".join(rows).hex(",", 16) + "}"
        cursor.execute(_KNOWN, [ids], prepare=False, binary=True)
        for (id_,) in cursor.fetchall():
            del rows[id_.bytes]
        with suppress(UniqueViolation), cursor.connection.transaction():
            _copy_in_order_of_id(cursor, list(rows.values()))
            return len(rows)
        # Another session has stored one of them since; the next look shows it.


def _copy_in_order_of_id(cursor: Cursor[Any], rows: Sequence[NewText]) -> None:
    """Copy rows so that two transactions with the same texts cannot block each other; they keep their sequence."""
    sequences = cursor.execute(_NEXT_SEQUENCES, [len(rows)], binary=True).fetchall()
    numbered = sorted(zip(rows, sequences, strict=True), key=lambda pair: pair[0].key)
    # -> pending, as above.
    with cursor.copy(f"copy texts ({COLUMNS}, sequence) from stdin (format binary)") as copy:
        copy.set_types([*_COPY_TYPES.values(), "int8"])
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
    with cursor.copy(f"copy incoming ({COLUMNS}) from stdin (format binary)") as copy:
        copy.set_types(list(_COPY_TYPES.values()))
        for row in rows:
            copy.write_row(astuple(row))


def lift_time_limit(cursor: Cursor[Any]) -> None:
    """Let the statements of this transaction run without a time limit."""
    cursor.execute("set local statement_timeout = 0")


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
