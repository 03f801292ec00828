"""Brings rows from Postgres into temporary tables of DuckDB."""

import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

import duckdb
import pyarrow as pa

from serving_api.replica import tables
from serving_api.replica.feed import EVERYTHING

# Batches that are read ahead; each has 16 MB.
_AHEAD = 2


class Source(Protocol):
    """Where rows come from: serving_api.replica.feed.FeedSnapshot."""

    def stream(self, statement: str, start: int, end: int, /) -> AbstractContextManager[pa.RecordBatchReader]:
        """Stream what a statement gives."""


def stage(
    cursor: duckdb.DuckDBPyConnection, source: Source, parts: Mapping[str, str], start: int, end: int
) -> None:
    """Receive the rows of each part into a temporary table `new_…`.

    Outside of a transaction: within one DuckDB would keep every batch in memory.
    """
    # One after another: they come over one connection.
    for name, statement in parts.items():
        with source.stream(statement, start, end) as stream:
            _insert(cursor, tables.stage(name), pa.Table.from_batches([], stream.schema))
            # Batch by batch: given the stream itself, DuckDB crashes when it is interrupted within.
            for batch in _read_ahead(stream):
                _insert(cursor, tables.receive(name), pa.Table.from_batches([batch]))


def load(cursor: duckdb.DuckDBPyConnection, source: Source, end: int, threads: int) -> None:
    """Fill an empty file with everything that is stamped below `end`."""
    # Several threads take twice the processor time for a batch that one stores.
    cursor.execute("set threads = 1")
    stage(cursor, source, EVERYTHING, 0, end)
    cursor.execute(f"set threads = {threads:d}")
    for statement in tables.LOAD:
        cursor.execute(statement)


class Applied(NamedTuple):
    """What a window brought."""

    ids: list[UUID]  # of the texts that changed
    answered_at: list[datetime]  # UTC, of each text with new answers the last one's; empty when many texts changed


def apply(cursor: duckdb.DuckDBPyConnection) -> Applied:
    """Bring what was staged of a window into the tables; belongs into a transaction."""
    ids = [row[0] for row in cursor.execute(tables.CHANGED).fetchall()]
    new_answers = tables.list_new_answers(len(ids))
    answered_at = [moment for (moment,) in cursor.execute(new_answers, ids).fetchall()] if new_answers else []
    cursor.execute(tables.DERIVE)
    withdrawn: int = cursor.execute("select count(*) from new_tombstones").fetchall()[0][0]
    for statement, takes_ids in tables.merge(len(ids), withdrawn):
        cursor.execute(statement, ids if takes_ids else None)
    recent: int = cursor.execute("select count(*) from recent_items").fetchall()[0][0]
    for statement in tables.trim_recent(recent):
        cursor.execute(statement)
    return Applied(ids, answered_at)


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
