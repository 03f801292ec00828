"""Reads the change feed from Postgres as Arrow batches, into temporary tables of DuckDB.

`core.models.labels` explains how a window works.
"""

import queue
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import duckdb
import pyarrow as pa
from adbc_driver_postgresql import dbapi
from sqlalchemy.dialects import postgresql

from core.connections import connection_string
from core.datasets import adjudication_of
from core.models import LabelStatus
from core.models.labels import WINDOW_END
from core.web.keys import ValidKey, select_valid_keys
from serving_api.columns import STORED
from serving_api.replica import tables
from serving_api.replica.tables import Role

# Identifies a history of transaction ids. A restored, promoted or recreated database starts another one. So does a
# restore into the same database, since it recreates the table: newer labels are gone without a tombstone.
_IDENTITY = """
    (select system_identifier from pg_control_system())::text
    || '/' || (select timeline_id from pg_control_checkpoint())
    || '/' || (select oid from pg_database where datname = current_database())
    || '/' || 'labels'::regclass::oid
"""

_HEAD = f"""
    select {_IDENTITY} as identity,
           {WINDOW_END}::text::bigint as window_end,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next_xid,
           exists(select from labels where changed_xid >= pg_snapshot_xmax(pg_current_snapshot()))
               as stamped_ahead,
           exists(select from labels where changed_xid >= '{{start}}'::xid8 and changed_xid < {WINDOW_END})
               as has_changes
"""  # noqa: S608 - constants of this program

# Copies of disputed texts, for adjudicators, are not items. The dataset's name shows it without a join.
_WINDOW = f"""
    l.changed_xid >= '{{start}}'::xid8 and l.changed_xid < '{{end}}'::xid8
    and l.dataset not like '%{adjudication_of("")}'
"""


def _select(table: str) -> str:
    """Return the select list of the columns that come from labels (l), predictions (p), or else texts (t).

    DuckDB misreads ADBC's xid8, and has no time zones: these columns are bigint and UTC instead.
    """

    def origin(sql: str) -> str:
        return "p" if re.search(r"\bp\.", sql) else "l" if sql.startswith("l.") else "t"

    columns = [column for column in STORED.values() if origin(column.origin.sql) == table]
    return ", ".join(f"{column.origin.sql} as {column.name}" for column in columns)


_LABEL, _PREDICTION, _TEXT = _select("l"), _select("p"), _select("t")

# `first_twin.id` is the text that its near duplicates began with: each leads to the most similar one of those
# stored before. These links are made with the text and stay, so the result never changes.
_FIRST_TWIN = """
    cross join lateral (select case when t.id in (select text_id from near_duplicates) then (
        with recursive up (id, steps) as (
            select t.id, 0
            union all
            select n.twin_id, up.steps + 1
            from up cross join lateral (
                select twin_id from near_duplicates where text_id = up.id order by similarity desc, twin_id limit 1
            ) n
            where up.steps < 10000
        )
        select id from up order by steps desc limit 1
    ) end as id) as first_twin
"""
_ANNOTATION = """
    a.response_id as id, a.annotator, a.value, a.status, a.created_at at time zone 'utc' as created_at,
    a.updated_at at time zone 'utc' as updated_at
"""
_LABELLED = f"l.status <> '{LabelStatus.WITHDRAWN}' and {_WINDOW}"

_TOMBSTONES = f"""
    select l.text_id as id, l.dataset, l.changed_xid::text::bigint as version,
           exists(select from forget_requests f where f.text_id = l.text_id and f.lifted_at is null) as forgotten
    from labels l
    where l.status = '{LabelStatus.WITHDRAWN}' and {_WINDOW}
"""  # noqa: S608

_ITEMS = f"""
    select {_TEXT}, {_LABEL}, {_PREDICTION}
    from labels l join texts t on t.id = l.text_id left join predictions p on p.text_id = l.text_id {_FIRST_TWIN}
    where {_LABELLED}
"""  # noqa: S608

# Adjudicators annotate the copy; their annotations belong to the disputed text.
_ANNOTATIONS = f"""
    select {_ANNOTATION}, l.text_id, l.dataset, '{Role.ANNOTATOR}' as role
    from labels l join annotations a on a.text_id = l.text_id
    where a.withdrawn_at is null and {_LABELLED}
    union all
    select {_ANNOTATION}, l.text_id, l.dataset, '{Role.ADJUDICATOR}' as role
    from labels l join texts c on c.adjudicates = l.text_id join annotations a on a.text_id = c.id
    where c.adjudicates is not null and a.withdrawn_at is null and {_LABELLED}
"""  # noqa: S608

_LABELS = f"select l.text_id as id, {_LABEL} from labels l where {_LABELLED}"  # noqa: S608
_TEXTS = f"select {_TEXT} from texts t {_FIRST_TWIN} where t.id in (select text_id from labels)"  # noqa: S608
_PREDICTIONS = f"""
    select p.text_id as id, {_PREDICTION} from predictions p join labels l on l.text_id = p.text_id
"""  # noqa: S608
_COPIES = "select c.id, c.adjudicates as text_id from texts c where c.adjudicates is not null"
_ANSWERS = f"select {_ANNOTATION}, a.text_id from annotations a where a.withdrawn_at is null"  # noqa: S608

# Statements by the name of their rows. Postgres joins the changes of a window: few rows, found by indexes. It is
# slow at joining whole tables: it sends these one after another, and DuckDB joins them.
CHANGES = {"items": _ITEMS, "annotations": _ANNOTATIONS, "tombstones": _TOMBSTONES}
EVERYTHING = {
    "labels": _LABELS,
    "texts": _TEXTS,
    "predictions": _PREDICTIONS,
    "copies": _COPIES,
    "answers": _ANSWERS,
    "tombstones": _TOMBSTONES,
}

# Manifests are long: they are read only when this differs from the models that are known.
_MODEL_STATES = """
    select dataset, version, is_active, activated_at at time zone 'utc' as activated_at
    from models order by created_at desc, version
"""
_MODELS = """
    select dataset, version, created_at at time zone 'utc' as created_at, is_active,
           activated_at at time zone 'utc' as activated_at, decision, manifest::text as manifest
    from models order by created_at desc, version
"""
_KEYS = str(select_valid_keys().compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]


class StoredModel(NamedTuple):
    """A trained model, as the table `models` describes it; times are UTC without a zone."""

    dataset: str
    version: str
    created_at: datetime
    is_active: bool
    activated_at: datetime | None
    decision: str  # whether it became active, and why
    manifest: str  # JSON


class StampedAhead(Exception):
    """Labels carry transaction ids that Postgres has not given out yet."""


@dataclass(frozen=True, slots=True)
class Head:
    """The position of the feed in one snapshot of Postgres."""

    identity: str
    window_end: int  # every transaction below has ended
    next_xid: int
    has_changes: bool  # whether there are label rows from the asked start up to window_end


@contextmanager
def connect(url: str) -> Iterator[dbapi.Connection]:
    """Connect to Postgres for `snapshot`.

    Raises:
        adbc_driver_manager.Error: Postgres is away or refuses.
    """
    with dbapi.connect(connection_string(url, "serving_api"), autocommit=True) as connection:
        yield connection


@contextmanager
def snapshot(connection: dbapi.Connection) -> Iterator["FeedSnapshot"]:
    """Open one repeatable-read transaction: everything read in it is of the same snapshot.

    After an error the connection must be closed: ADBC crashes when it is used again in the middle of a stream.
    """
    with connection.cursor() as cursor:
        cursor.execute("begin isolation level repeatable read read only")
        yield FeedSnapshot(connection)
        cursor.execute("commit")


class FeedSnapshot:
    """One snapshot of Postgres."""

    def __init__(self, connection: dbapi.Connection) -> None:
        self._connection = connection

    def head(self, start: int) -> Head:
        """Return the position of the feed, and whether labels changed from `start` on.

        Raises:
            StampedAhead: the rows were restored from another cluster and need new stamps.
        """
        row = self._rows(_HEAD.format(start=start))[0]
        if row.pop("stamped_ahead"):
            raise StampedAhead(
                "Labels carry transaction ids of another cluster, probably from a dump. Stamp them anew: "
                "update labels set changed_xid = pg_current_xact_id();"
            )
        return Head(**row)

    def keys(self) -> list[ValidKey]:
        """Return every valid API key."""
        return [ValidKey.from_row(row.values()) for row in self._rows(_KEYS)]

    def models(self, known: list[StoredModel]) -> list[StoredModel]:
        """Return every model, the newest first; `known` itself if nothing has changed since it was read."""
        states = [(m.dataset, m.version, m.is_active, m.activated_at) for m in known]
        if [tuple(row.values()) for row in self._rows(_MODEL_STATES)] == states:
            return known
        return [StoredModel(**row) for row in self._rows(_MODELS)]

    @contextmanager
    def stream(self, statement: str, start: int, end: int) -> Iterator[pa.RecordBatchReader]:
        """Stream one of CHANGES or EVERYTHING, of the labels that changed from `start` up to, not with, `end`."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement.format(start=start, end=end))
            with cursor.fetch_record_batch() as reader:
                yield reader

    def _rows(self, statement: str) -> list[dict[str, Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            rows: list[dict[str, Any]] = cursor.fetch_arrow_table().to_pylist()
            return rows


# Batches that are read ahead; each has 16 MB.
_AHEAD = 2


class Source(Protocol):
    """A source of rows: `FeedSnapshot`."""

    def stream(self, statement: str, start: int, end: int, /) -> AbstractContextManager[pa.RecordBatchReader]:
        """Stream the rows of a statement."""


def stage(
    cursor: duckdb.DuckDBPyConnection, source: Source, parts: Mapping[str, str], start: int, end: int
) -> None:
    """Receive the rows of each part into a temporary table `new_…`.

    Call it outside of a transaction: in one, DuckDB would keep every batch in memory.
    """
    # One after another: they come over one connection.
    for name, statement in parts.items():
        with source.stream(statement, start, end) as stream:
            _insert(cursor, tables.stage(name), pa.Table.from_batches([], stream.schema))
            # Batch by batch: given the stream itself, DuckDB crashes when it is interrupted within.
            for batch in _read_ahead(stream):
                _insert(cursor, tables.receive(name), pa.Table.from_batches([batch]))


def _insert(cursor: duckdb.DuckDBPyConnection, statement: str, incoming: pa.Table) -> None:
    cursor.register("incoming", incoming)
    cursor.execute(statement)
    cursor.unregister("incoming")


def _read_ahead(stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Read in another thread, so that Postgres works while DuckDB does."""
    batches: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(_AHEAD)
    stopping = threading.Event()

    def put(one: pa.RecordBatch | BaseException | None) -> None:
        while not stopping.is_set():
            with suppress(queue.Full):
                batches.put(one, timeout=0.1)
                return

    def read() -> None:
        try:
            for batch in stream:
                if stopping.is_set():
                    return
                put(batch)
            put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the batches are awaited
            put(error)

    reader = threading.Thread(target=read, name="feed reader", daemon=True)
    reader.start()
    try:
        while (one := batches.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one
    finally:
        stopping.set()
        reader.join()
