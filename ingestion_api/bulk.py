"""Bulk uploads: read, check, copy to Postgres, chunk by chunk, in constant memory.

Runs in a worker thread, with a plain psycopg connection, since COPY is psycopg's own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import psycopg

from core.datasets import Datasets
from core.problems import FieldError, InvalidFields, Problem, TooLarge
from ingestion_api import metrics, repository
from ingestion_api.mapping import Mapping
from ingestion_api.readers import Reader, Row, RowRefused
from ingestion_api.submissions import NewText, check_fields

_SHOWN_ERRORS = 100


@dataclass(slots=True)
class Counts:
    """What has become of the rows so far."""

    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    errors: list[dict[str, int | str]] = field(default_factory=list)

    def reject(self, row: int, code: str, detail: str) -> None:
        """Count a rejected row, and keep its reason while there are few."""
        self.rejected += 1
        if len(self.errors) < _SHOWN_ERRORS:
            self.errors.append({"row": row, "code": code, "detail": detail})

    def as_dict(self) -> dict[str, object]:
        """Return what travels on the wire."""
        return {name: getattr(self, name) for name in self.__slots__}


class Aborted(Problem):
    """With `on_error=abort`: a row was rejected, so that nothing is stored."""

    status = 422
    code = "rows_rejected"


@dataclass(frozen=True, slots=True)
class BulkUpload:
    """How a body is to be read and stored."""

    reader: Reader
    mapping: Mapping
    datasets: Datasets
    abort_on_error: bool
    chunk_rows: int


def store_bulk(connection: psycopg.Connection, upload: BulkUpload, chunks: Iterable[bytes]) -> Counts:
    """Store the rows of a body; each chunk of rows is one transaction, or all are one with `abort_on_error`.

    Raises:
        Aborted: a row was rejected under `abort_on_error`; nothing is stored.
        Problem: the body cannot be read on; carries the counts of what was stored before.
    """
    counts = Counts()
    rows = _check_rows(upload.reader(chunks), upload, counts)
    try:
        with connection.cursor() as cursor:
            repository.create_stage(cursor)
            connection.commit()
            for batch in _batches(rows, upload.chunk_rows):
                repository.stage_texts(cursor, batch)
                if not upload.abort_on_error:
                    _finish(counts, len(batch), repository.insert_staged(cursor))
                # Without this commit an upload would hold back vacuum and the change feed for as long as it lasts.
                connection.commit()
            if upload.abort_on_error:
                _finish_all_or_nothing(cursor, counts)
                connection.commit()
    except Problem as problem:
        problem.extra = counts.as_dict() | problem.extra
        raise
    return counts


def _finish_all_or_nothing(cursor: psycopg.Cursor, counts: Counts) -> None:
    if counts.rejected:
        raise Aborted(f"{counts.rejected} rows were rejected; nothing is stored.")
    cursor.execute("set local statement_timeout = 0")  # as long as the body was, so long may this take
    _finish(counts, counts.received, repository.insert_staged(cursor))


def _finish(counts: Counts, rows: int, accepted: int) -> None:
    counts.accepted += accepted
    counts.duplicates += rows - accepted
    metrics.SUBMISSIONS.labels("accepted").inc(accepted)
    metrics.SUBMISSIONS.labels("duplicate").inc(rows - accepted)


def _batches(rows: Iterable[NewText], size: int) -> Iterator[list[NewText]]:
    """Yield lists of `size` rows; where reading fails, first what was read before."""
    batch: list[NewText] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == size:
                yield batch
                batch = []
    except Problem:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _check_rows(rows: Iterator[Row], upload: BulkUpload, counts: Counts) -> Iterator[NewText]:
    for number, fields in rows:
        counts.received += 1
        try:
            if isinstance(fields, RowRefused):
                raise fields
            yield check_fields(upload.mapping(fields), upload.datasets)
        except RowRefused as refused:
            _reject(counts, number, refused.code, refused.detail)
        except InvalidFields as invalid:
            code, detail = _first(invalid)
            _reject(counts, number, code, detail)
        except TooLarge as too_large:
            _reject(counts, number, too_large.code, too_large.detail)


def _reject(counts: Counts, row: int, code: str, detail: str) -> None:
    counts.reject(row, code, detail)
    metrics.SUBMISSIONS.labels("rejected").inc()


def _first(invalid: InvalidFields) -> tuple[str, str]:
    """The code of the first wrong field, and the details of all."""
    errors: list[FieldError] = invalid.errors
    return errors[0].code, "; ".join(f"{error.pointer}: {error.detail}" for error in errors)
