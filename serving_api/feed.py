"""Reads the change feed from Postgres as Arrow batches; see core.change_feed for how a window works."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from adbc_driver_postgresql import dbapi
from sqlalchemy.dialects import postgresql

from core.change_feed import WINDOW_END
from core.database import connection_string
from core.datasets import adjudication_of
from core.keys import select_valid_keys
from core.models import LabelStatus
from serving_api.replica_tables import Role

Keys = dict[bytes, frozenset[str]]

# Which history of transaction ids this is: a restored, promoted or recreated database counts anew.
_IDENTITY = """
    (select system_identifier from pg_control_system())::text
    || '/' || (select timeline_id from pg_control_checkpoint())
    || '/' || (select oid from pg_database where datname = current_database())
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

# Copies of disputed texts, put before adjudicators, are no items. Told by the name: it costs no join.
_WINDOW = f"""
    l.changed_xid >= '{{start}}'::xid8 and l.changed_xid < '{{end}}'::xid8
    and l.dataset not like '%{adjudication_of("")}'
"""

# DuckDB misreads ADBC's uuid, xid8 and jsonb, and has no time zones: text, bigint and UTC instead.
_ITEMS = f"""
    select l.text_id::text as id, l.dataset, t.text, l.label, l.status, l.agreement, l.votes::text as votes,
           l.annotations, l.confidence, l.rule, l.rule_version, l.decided_by, t.gold_label, t.source,
           t.external_id, t.claimed_label, t.score, t.metadata::text as metadata,
           t.enrichment::text as enrichment, t.enrichment -> 'language' ->> 'code' as language,
           t.received_at at time zone 'utc' as received_at, l.labelled_at at time zone 'utc' as labelled_at,
           l.changed_xid::text::bigint as version
    from labels l join texts t on t.id = l.text_id
    where l.status <> '{LabelStatus.WITHDRAWN}' and {_WINDOW}
"""  # noqa: S608

_WITHDRAWN = f"""
    select l.text_id::text as id, l.dataset, l.changed_xid::text::bigint as version
    from labels l
    where l.status = '{LabelStatus.WITHDRAWN}' and {_WINDOW}
"""  # noqa: S608

_ANNOTATION = """
    a.response_id::text as id, l.text_id::text as text_id, l.dataset, a.annotator, a.value, a.status,
    a.created_at at time zone 'utc' as created_at, a.updated_at at time zone 'utc' as updated_at
"""
_IN_FORCE = f"l.status <> '{LabelStatus.WITHDRAWN}' and a.withdrawn_at is null and {_WINDOW}"

# What adjudicators say about the copy is said about the disputed text.
_ANNOTATIONS = f"""
    select {_ANNOTATION}, '{Role.ANNOTATOR}' as role
    from labels l join annotations a on a.text_id = l.text_id
    where {_IN_FORCE}
    union all
    select {_ANNOTATION}, '{Role.ADJUDICATOR}' as role
    from labels l join texts c on c.adjudicates = l.text_id join annotations a on a.text_id = c.id
    where c.adjudicates is not null and {_IN_FORCE}
"""  # noqa: S608

_KEYS = str(select_valid_keys().compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]


class StampedAhead(Exception):
    """Labels carry transaction ids that Postgres has not given out yet."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the feed stands in one snapshot of Postgres."""

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
def snapshot(connection: dbapi.Connection) -> Iterator["Snapshot"]:
    """Open one repeatable-read transaction: all that is read within fits together.

    After an error the connection must be closed: ADBC crashes when it is used again in the middle of a stream.
    """
    with connection.cursor() as cursor:
        cursor.execute("begin isolation level repeatable read read only")
        yield Snapshot(connection)
        cursor.execute("commit")


class Snapshot:
    """Postgres at one moment."""

    def __init__(self, connection: dbapi.Connection) -> None:
        self._connection = connection

    def head(self, start: int) -> Head:
        """Return where the feed stands, and whether it changed from `start` on.

        Raises:
            StampedAhead: the rows were restored from another cluster and must be stamped anew.
        """
        row = self._rows(_HEAD.format(start=start))[0]
        if row.pop("stamped_ahead"):
            raise StampedAhead(
                "Labels carry transaction ids of another cluster, probably from a dump. Stamp them anew: "
                "update labels set changed_xid = pg_current_xact_id();"
            )
        return Head(**row)

    def keys(self) -> Keys:
        """Return the scopes of every valid API key by its hash."""
        return {row["hash"]: frozenset(row["scopes"]) for row in self._rows(_KEYS)}

    @contextmanager
    def items(self, start: int, end: int) -> Iterator[pa.RecordBatchReader]:
        """Stream the labelled texts that changed from `start` up to, not including, `end`."""
        with self._stream(_ITEMS.format(start=start, end=end)) as reader:
            yield reader

    @contextmanager
    def annotations(self, start: int, end: int) -> Iterator[pa.RecordBatchReader]:
        """Stream all annotations of the labelled texts that changed in the window."""
        with self._stream(_ANNOTATIONS.format(start=start, end=end)) as reader:
            yield reader

    @contextmanager
    def withdrawn(self, start: int, end: int) -> Iterator[pa.RecordBatchReader]:
        """Stream the ids of the texts that lost their label in the window."""
        with self._stream(_WITHDRAWN.format(start=start, end=end)) as reader:
            yield reader

    @contextmanager
    def _stream(self, statement: str) -> Iterator[pa.RecordBatchReader]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            with cursor.fetch_record_batch() as reader:
                yield reader

    def _rows(self, statement: str) -> list[dict[str, Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            rows: list[dict[str, Any]] = cursor.fetch_arrow_table().to_pylist()
            return rows
