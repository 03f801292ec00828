"""Bulk uploads: read, check, copy to Postgres, batch by batch, in constant memory.

Runs outside of the event loop, with a plain psycopg connection, since COPY is psycopg's own.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from core.connections import connect_in_thread
from core.settings import DatabaseSettings, HttpSettings, TracingSettings, read_settings
from core.startup import step_back
from core.tables.decoding import PlainBody
from core.tracing import tracing
from core.web.problems import Problem, TooLarge
from ingestion_api.bulk.batches import Batch, BulkUpload, Reasons, Reject, read_batches
from ingestion_api.bulk.pipes import (
    limit_memory,
    receive_body,
    report_each,
    reporting_to,
    waiting_for_postgres,
)
from ingestion_api.bulk.repository import (
    ReadyRows,
    copy_new,
    create_stage,
    encode,
    insert_staged,
    lift_time_limit,
    stage_texts,
)
from ingestion_api.bulk.schemas import RowsRejected
from ingestion_api.enrichment.repository import linked_datasets
from ingestion_api.settings import IngestionSettings

_SHOWN_ERRORS = 100
# The search for near duplicates holds a lock that the dataset's single texts wait for: 0.3 s for these rows.
_LINKED_CHUNK_ROWS = 500
_OUT_OF_MEMORY = (
    "Reading the body takes more memory than allowed. What was stored stays. "
    "Write shorter row groups and pages, or shorter rows."
)
COUNTED = ("received", "accepted", "duplicates", "rejected")

Cursor = psycopg.Cursor[Any]


@dataclass(slots=True)
class Counts:
    """The counts of rows so far: accepted + duplicates + rejected = received."""

    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    errors: list[Reject] = field(default_factory=list)
    reasons: Reasons = field(default_factory=Reasons)

    def add(self, batch: Batch) -> None:
        """Count the rows of a batch, and keep the reasons of rejects while there are few."""
        self.received += batch.received
        self.rejected += len(batch.rejects)
        self.errors += batch.rejects[: _SHOWN_ERRORS - len(self.errors)]
        self.reasons.add(batch.rejects)

    def stored(self, rows: int, accepted: int) -> None:
        """Count what became of rows that could be stored."""
        self.accepted += accepted
        self.duplicates += rows - accepted

    def as_dict(self) -> dict[str, Any]:
        """Return what travels on the wire."""
        numbers = {name: getattr(self, name) for name in COUNTED}
        return numbers | {"errors": list(map(asdict, self.errors)), "error_groups": self.reasons.as_list()}


# Called in the transaction that stores a batch, with the counts that include it. With `abort_on_error` batches are
# only staged; the transaction that stores them all calls it once more, with an empty batch.
Journal = Callable[[Cursor, Batch, Counts], None]


def store_bulk(
    connection: psycopg.Connection,
    upload: BulkUpload,
    chunks: Iterable[bytes],
    chunk_rows: int,
    journal: Journal | None = None,
    counts: Counts | None = None,
    after_row: int = 0,
) -> Counts:
    """Store the rows of a body, as it was sent, in batches of `chunk_rows`.

    Each batch is one transaction, or all are one with `abort_on_error`. `counts` and `after_row` are the state in
    which an earlier run stopped.

    Raises:
        RowsRejected: a row was rejected under `abort_on_error`; nothing is stored.
        Problem: the rest of the body cannot be read, or takes too much memory. It has the counts of stored rows.
    """
    counts = counts or Counts()
    if linked_datasets(upload.datasets):
        chunk_rows = min(chunk_rows, _LINKED_CHUNK_ROWS)
    batches = read_batches(upload, PlainBody(report_each(chunks), upload.encoding), chunk_rows, after_row)
    try:
        with connection.cursor() as cursor:
            if _stages(upload):
                create_stage(cursor)
                connection.commit()
            _store_batches(cursor, upload, batches, journal, counts)
            if upload.abort_on_error:
                with waiting_for_postgres():
                    _finish_all_or_nothing(cursor, upload, counts)
                    if journal is not None:
                        journal(cursor, Batch(), counts)
                    connection.commit()
    except Problem as problem:
        problem.extra = counts.as_dict() | problem.extra
        raise
    except MemoryError:
        raise TooLarge(_OUT_OF_MEMORY, code="out_of_memory", extra=counts.as_dict()) from None
    return counts


def _stages(upload: BulkUpload) -> bool:
    """Whether rows go by way of a temporary table: to be stored together, or to be linked with near twins."""
    return upload.abort_on_error or bool(linked_datasets(upload.datasets))


def _store_batches(
    cursor: Cursor, upload: BulkUpload, batches: Iterator[Batch], journal: Journal | None, counts: Counts
) -> None:
    """Store each batch in a thread, while the next one is being read."""
    # A file that was sent before, or until it was cut off: one batch is like the one before.
    expect_duplicates = False

    @waiting_for_postgres()
    def store(batch: Batch, ready: ReadyRows | None) -> None:
        nonlocal expect_duplicates
        started_ns = time.time_ns()
        counts.add(batch)
        if ready is None:
            stage_texts(cursor, batch.rows)
            accepted = 0 if upload.abort_on_error else insert_staged(cursor, upload.datasets)
        else:
            accepted = copy_new(cursor, ready, expect_duplicates=expect_duplicates)
            expect_duplicates = accepted < len(batch.rows)
        if not upload.abort_on_error:
            counts.stored(len(batch.rows), accepted)
        if journal is not None:
            journal(cursor, batch, counts)
        # Without this commit an upload would hold back vacuum and the change feed for as long as it lasts.
        cursor.connection.commit()
        if tracing.is_on and not upload.abort_on_error:
            _trace(batch, started_ns)

    stages = _stages(upload)
    under_way: Future[None] | None = None
    with ThreadPoolExecutor(1) as thread, cursor.connection.cursor() as idle:
        try:
            for batch in batches:
                ready = None if stages else encode(idle, batch.rows)
                if under_way is not None:
                    under_way.result()
                under_way = thread.submit(store, batch, ready)
        finally:
            if under_way is not None:
                under_way.result()


def _trace(batch: Batch, started_ns: int) -> None:
    ids = [row.id for row in batch.rows]
    stored = tracing.add_batch("store rows", ids, started_ns, (), {"texts": len(ids)})
    for id_ in filter(tracing.traces, ids):
        tracing.add_step("receive", id_, started_ns, link=stored)


def _finish_all_or_nothing(cursor: Cursor, upload: BulkUpload, counts: Counts) -> None:
    if counts.rejected:
        raise RowsRejected(counts.rejected)
    lift_time_limit(cursor)  # a long body takes a long insert
    counts.stored(counts.received, insert_staged(cursor, upload.datasets))


# The thread that reads rows must not keep the one that stores them waiting for the interpreter: by default it does
# for 5 ms at each step of the conversation with Postgres, which took a third of the speed.
_SWITCH_SECONDS = 0.0002


def store_body(
    upload: BulkUpload,
    body: Path,
    traceparent: str | None,
    database: DatabaseSettings,
    settings: IngestionSettings,
    reports: Path,
) -> Counts:
    """Store the body that comes through the pipe `body`, and report progress to the pipe `reports`.

    Raises:
        Problem: as `store_bulk`.
        BodyCut: the client is gone; the rows that it sent are stored.
    """
    prepare_process(settings)
    chunks = receive_body(body, read_settings(HttpSettings).body_seconds)
    with (
        tracing_for(traceparent),
        connect_in_thread(database, "ingestion_api bulk") as connection,
        reporting_to(reports),
    ):
        return store_bulk(connection, upload, chunks, settings.bulk_chunk_rows)


@contextmanager
def tracing_for(traceparent: str | None) -> Iterator[None]:
    """Trace what the block stores as a part of a request, and send it: this process may be killed after that."""
    tracing.work_for(traceparent)
    try:
        yield
    finally:
        tracing.flush()


def prepare_process(settings: IngestionSettings) -> None:
    """Make this process one that stores rows."""
    limit_memory(settings.worker_memory_bytes)
    tracing.configure(read_settings(TracingSettings), "ingestion_api")
    step_back()
    sys.setswitchinterval(_SWITCH_SECONDS)
