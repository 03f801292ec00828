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
from core.datasets import Datasets
from core.settings import DatabaseSettings, HttpSettings, TracingSettings, read_settings
from core.startup import step_back
from core.tables.decoding import decode
from core.tracing import tracing
from core.web.problems import Problem
from ingestion_api.bulk.batches import Batch, BulkUpload, Reasons, Reject, read_batches
from ingestion_api.bulk.parameters import BulkParameters, make_upload
from ingestion_api.bulk.pipes import (
    OutOfMemory,
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
from ingestion_api.enrichment.links import linked_datasets
from ingestion_api.settings import IngestionSettings

_SHOWN_ERRORS = 100
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


class Aborted(Problem):
    """With `on_error=abort`: a row was rejected, so that nothing is stored."""

    status = 422
    code = "rows_rejected"


# Called in the transaction that stores a batch, with the counts that include it. With `abort_on_error` batches are
# only staged; the transaction that stores them all calls it once more, with an empty batch.
Journal = Callable[[Cursor, Batch, Counts], None]

Store = Callable[[Batch, ReadyRows | None], None]


def store_bulk(
    connection: psycopg.Connection,
    upload: BulkUpload,
    chunks: Iterable[bytes],
    journal: Journal | None = None,
    counts: Counts | None = None,
    after_row: int = 0,
) -> Counts:
    """Store the rows of a body; each batch is one transaction, or all are one with `abort_on_error`.

    `counts` and `after_row` are the state in which an earlier run stopped.

    Raises:
        Aborted: a row was rejected under `abort_on_error`; nothing is stored.
        Problem: the rest of the body cannot be read, or takes too much memory. It has the counts of stored rows.
    """
    counts = counts or Counts()
    try:
        with connection.cursor() as cursor:
            if _stages(upload):
                create_stage(cursor)
                connection.commit()
            _store_batches(cursor, upload, read_batches(upload, chunks, after_row), journal, counts)
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
        out_of_memory = OutOfMemory()
        out_of_memory.extra = counts.as_dict()
        raise out_of_memory from None
    return counts


def _stages(upload: BulkUpload) -> bool:
    """Whether rows go by way of a temporary table: to be stored together, or to be linked with near twins."""
    return upload.abort_on_error or bool(linked_datasets(upload.datasets))


def _store_batches(
    cursor: Cursor, upload: BulkUpload, batches: Iterator[Batch], journal: Journal | None, counts: Counts
) -> None:
    # A file that was sent before, or until it was cut off: one batch is like the one before.
    expect_duplicates = False

    def store(batch: Batch, ready: ReadyRows | None) -> None:
        nonlocal expect_duplicates
        started_ns = time.time_ns()
        counts.add(batch)
        if ready is None:
            accepted = _stage(cursor, batch, upload)
        else:
            accepted = copy_new(cursor, ready, expect_duplicates=expect_duplicates)
            expect_duplicates = accepted < len(batch.rows)
        if not upload.abort_on_error:
            counts.stored(len(batch.rows), accepted)
        if journal is not None:
            journal(cursor, batch, counts)
        # Without this commit an upload would hold back vacuum and the change feed for as long as it lasts.
        cursor.connection.commit()
        if not upload.abort_on_error:
            _trace(batch, started_ns)

    stages = _stages(upload)
    with _one_behind(store) as store_beside, cursor.connection.cursor() as idle:
        for batch in batches:
            store_beside(batch, None if stages else encode(idle, batch.rows))


def _trace(batch: Batch, started_ns: int) -> None:
    ids = [row.id for row in batch.rows]
    stored = tracing.add_batch("store rows", ids, started_ns, (), {"texts": len(ids)})
    for id_ in filter(tracing.traces, ids):
        tracing.add_step("receive", id_, started_ns, link=stored)


def _stage(cursor: Cursor, batch: Batch, upload: BulkUpload) -> int:
    """Stage a batch, and insert it, unless all batches are stored together; returns how many rows were new."""
    stage_texts(cursor, batch.rows)
    return 0 if upload.abort_on_error else insert_staged(cursor, upload.datasets)


@contextmanager
def _one_behind(store: Store) -> Iterator[Store]:
    """Give a function that stores a batch while the next one is being read; all are stored when the block ends."""
    under_way: Future[None] | None = None

    def store_beside(batch: Batch, ready: ReadyRows | None) -> None:
        nonlocal under_way
        if under_way is not None:
            under_way.result()
        under_way = thread.submit(store_watched, batch, ready)

    def store_watched(batch: Batch, ready: ReadyRows | None) -> None:
        with waiting_for_postgres():
            store(batch, ready)

    with ThreadPoolExecutor(1) as thread:
        try:
            yield store_beside
        finally:
            if under_way is not None:
                under_way.result()


def _finish_all_or_nothing(cursor: Cursor, upload: BulkUpload, counts: Counts) -> None:
    if counts.rejected:
        raise Aborted(f"{counts.rejected} rows were rejected; nothing is stored.")
    lift_time_limit(cursor)  # a long body takes a long insert
    counts.stored(counts.received, insert_staged(cursor, upload.datasets))


# The thread that reads rows must not keep the one that stores them waiting for the interpreter: by default it does
# for 5 ms at each step of the conversation with Postgres, which took a third of the speed.
_SWITCH_SECONDS = 0.0002


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """A bulk upload, in values that travel between processes."""

    media_type: str
    encoding: str
    parameters: BulkParameters
    datasets: Datasets
    allowed: frozenset[str] | None  # the datasets that its rows may name; None: all
    traceparent: str | None = None


def store_body(
    request: BulkRequest, body: Path, database: DatabaseSettings, settings: IngestionSettings, reports: Path
) -> Counts:
    """Store the body that comes through the pipe `body`, and report progress to the pipe `reports`.

    Raises:
        Problem: as `store_bulk`; or a parameter is wrong.
        BodyCut: the client is gone; the rows that it sent are stored.
    """
    prepare_process(settings)
    chunk_rows = settings.bulk_chunk_rows
    upload = make_upload(request.media_type, request.parameters, request.datasets, chunk_rows, request.allowed)
    chunks = decode(report_each(receive_body(body, read_settings(HttpSettings).body_seconds)), request.encoding)
    with (
        tracing_for(request.traceparent),
        connect_in_thread(database, "ingestion_api bulk") as connection,
        reporting_to(reports),
    ):
        return store_bulk(connection, upload, chunks)


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
