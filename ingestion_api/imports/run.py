"""Runs an import in a separate process: reads its body from Postgres and stores its rows. `worker` calls it.

Each batch is one transaction with the counts that include it, under the claim. So the process that continues after
a crash counts nothing twice.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from core.connections import connect_in_thread
from core.datasets import Datasets
from core.models import ImportState
from core.settings import DatabaseSettings
from core.web.problems import Problem
from ingestion_api.bulk.batches import Batch, BulkUpload, to_json
from ingestion_api.bulk.pipes import reporting_to, waiting_for_postgres
from ingestion_api.bulk.schemas import BulkParameters, check_parameters
from ingestion_api.bulk.store import COUNTED, Counts, Cursor, Journal, prepare_process, store_bulk, tracing_for
from ingestion_api.imports import repository
from ingestion_api.imports.repository import Claim, StoredReject
from ingestion_api.settings import IngestionSettings

# Postgres ends a long insert soon after its client process is gone.
_OPTIONS = "-c client_connection_check_interval=5s"


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run has ended (None: the claim was lost), and what this run alone has counted."""

    state: ImportState | None
    counts: dict[str, int]


class ClaimLost(Exception):
    """The import was deleted or claimed by another process, or the parent process is gone."""


def run_import(
    claim: Claim, datasets: Datasets, database: DatabaseSettings, settings: IngestionSettings, reports: Path
) -> RunResult:
    """Store the rows behind the last counted one, and report progress to the pipe `reports`.

    Raises:
        psycopg.OperationalError: the database is away; the committed batches are counted.
    """
    prepare_process(settings)
    counts = Counts() if claim.parameters["on_error"] == "abort" else claim.counts
    before = {name: getattr(counts, name) for name in COUNTED}
    state = None
    with (
        tracing_for(None),
        suppress(ClaimLost),  # outside of the connection's block, which then rolls back
        _connect(database) as connection,
        _connect(database, autocommit=True) as reader,
        reporting_to(reports),
    ):
        state = _run(claim, datasets, settings, counts, connection, reader)
    return RunResult(state, {name: getattr(counts, name) - before[name] for name in COUNTED})


def _run(
    claim: Claim,
    datasets: Datasets,
    settings: IngestionSettings,
    counts: Counts,
    connection: psycopg.Connection,
    reader: psycopg.Connection,
) -> ImportState:
    body = _Body(reader, claim)
    try:
        parameters = BulkParameters.model_validate(claim.parameters)
        check_parameters(parameters, datasets, claim.media_type)
        upload = BulkUpload(claim.media_type, claim.encoding, parameters, datasets, claim.datasets)
        if upload.abort_on_error:
            repository.start_anew(connection, claim)
        after_row = 0 if upload.abort_on_error else claim.last_row
        note = _make_journal(claim, body, settings, upload)
        store_bulk(connection, upload, body.chunks(), settings.bulk_chunk_rows, note, counts, after_row)
    except Problem as problem:
        connection.rollback()
        repository.end(connection.cursor(), claim, _without_counts(problem))
        connection.commit()
        return ImportState.FAILED
    repository.end(connection.cursor(), claim)
    connection.commit()
    return ImportState.DONE


class _Body:
    """The body of an import as it was sent, read from Postgres in pieces."""

    def __init__(self, reader: psycopg.Connection, claim: Claim) -> None:
        self._reader = reader
        self._claim = claim
        self.bytes_read = 0

    def chunks(self) -> Iterator[bytes]:
        while self.bytes_read < self._claim.length:
            with waiting_for_postgres():
                chunk = repository.read_chunk(self._reader, self._claim.id, self.bytes_read)
            if chunk is None:
                raise ClaimLost  # it was deleted
            self.bytes_read += len(chunk)
            yield chunk


@dataclass(slots=True)
class KeptRejects:
    """The rejected rows that are kept so far, and their limits. The first rows are kept, without gaps."""

    rows: int
    bytes: int
    most_rows: int
    most_bytes: int

    def go_on(self, rows: int, size: int, rejected: int) -> None:
        """Start from the rows that an earlier run has kept, of those it `rejected`."""
        self.rows, self.bytes = rows, size
        if rows < rejected:
            self.most_rows = rows

    def keep(self, rejects: Iterable[StoredReject]) -> Iterator[StoredReject]:
        """Yield those that are still kept, and count them."""
        for reject in rejects:
            _, code, detail, fields = reject
            size = len(code) + len(detail) + len(fields or "")
            if self.rows >= self.most_rows or self.bytes + size > self.most_bytes:
                self.most_rows = self.rows  # a shorter row later would leave a gap
                return
            self.rows += 1
            self.bytes += size
            yield reject


def _make_journal(claim: Claim, body: _Body, settings: IngestionSettings, upload: BulkUpload) -> Journal:
    parent = os.getppid()
    abort = upload.abort_on_error
    # What a dataset redacts must not be kept in a row that was rejected.
    keep_fields = not any(dataset.redact for dataset in upload.datasets.values())
    kept = KeptRejects(0, 0, settings.import_rejects, settings.import_reject_bytes)
    if not abort:
        kept.go_on(claim.rejects_kept, claim.reject_bytes, claim.counts.rejected)

    def note(cursor: Cursor, batch: Batch, counts: Counts) -> None:
        if os.getppid() != parent:
            raise ClaimLost
        rejects = list(kept.keep(_rejects(batch, keep_fields)))
        values = {name: getattr(counts, name) for name in COUNTED} | {
            "id": claim.id,
            "owner": claim.owner,
            "last_row": batch.last_row,
            "bytes_read": body.bytes_read,
            "rejects_kept": kept.rows,
            "reject_bytes": kept.bytes,
            "lease_seconds": settings.import_lease_seconds,
            # With `on_error=abort` a run starts from the first row, so no batch is progress that survives a crash.
            "is_progress": not abort,
        }
        if not repository.record(cursor, values):
            raise ClaimLost
        repository.add_rejects(cursor, claim.id, rejects)
        if abort and not batch.received:
            repository.end(cursor, claim)  # with the rows, in one transaction

    return note


def _rejects(batch: Batch, keep_fields: bool) -> Iterator[StoredReject]:
    for reject, fields in zip(batch.rejects, batch.rejected_fields, strict=True):
        yield reject.row, reject.code, reject.detail, to_json(fields) if keep_fields else None


def _without_counts(problem: Problem) -> dict[str, Any]:
    """Return a problem's fields without the counts and rejected rows, which the import stores separately."""
    counted = {*COUNTED, "errors", "error_groups"}
    return {name: value for name, value in problem.as_dict().items() if name not in counted}


def _connect(database: DatabaseSettings, *, autocommit: bool = False) -> psycopg.Connection:
    return connect_in_thread(database, "ingestion_api import", autocommit=autocommit, options=_OPTIONS)
