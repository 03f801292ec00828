"""Queries of exports: they read the rows batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import duckdb
import pyarrow as pa

from core.datasets import Datasets
from serving_api.texts.parameters import ExportParameters, Order, TextsParameters
from serving_api.texts.query import TextsQuery, page_query
from serving_api.texts.repository import Condition, conditions, ordering

# The size of DuckDB's own batches.
_BATCH_ROWS = 2048
# Rows that are sorted at a time, roughly.
SORTED_ROWS = 65_536


@dataclass(frozen=True)
class ExportQuery:
    """Which labelled texts are exported."""

    texts: TextsQuery
    order: Order | None  # None: the order of the replica

    @property
    def key(self) -> bytes:
        """A hash that is equal for queries of the same rows in the same order, and only for them."""
        return f"{self.order} ".encode() + self.texts.fingerprint


def export_query(parameters: ExportParameters, datasets: Datasets) -> ExportQuery:
    """Return the query of an export.

    Raises:
        InvalidFields: the dataset or a label is not known; each is named.
        Mismatch: a label belongs to another dataset.
    """
    # Defaults don't count as sent: Swagger sends all of them, and `match` without `q` would be refused.
    given = parameters.model_dump(include=set(TextsParameters.model_fields), exclude_defaults=True)
    page = page_query(TextsParameters.model_validate(given), parameters.label, datasets)
    return ExportQuery(page.texts, Order(parameters.order) if parameters.order else None)


def schema_of(cursor: duckdb.DuckDBPyConnection, columns: str) -> pa.Schema:
    """Return the schema of a select list."""
    return cursor.execute(f"select {columns} from items limit 0").to_arrow_reader(1).schema  # noqa: S608


def read_batches(cursor: duckdb.DuckDBPyConnection, query: ExportQuery, columns: str) -> Iterator[pa.RecordBatch]:
    """Yield batches of the select list. DuckDB reads only as far as they are consumed."""
    where, values = conditions(query.texts)
    for (of_part, bounds), order in _parts(cursor, query.order):
        statement = f"select {columns} from items where {where} and {of_part} {order}"  # noqa: S608 - known columns
        yield from cursor.execute(statement, [*values, *bounds]).to_arrow_reader(_BATCH_ROWS)


def _parts(cursor: duckdb.DuckDBPyConnection, order: Order | None) -> Iterator[tuple[Condition, str]]:
    """Yield the condition of each part, and the order within it.

    With an order, the parts are consecutive spans of time: sorting all rows in one query would keep them in
    memory. The rows are nearly in order of time, so DuckDB finds a span without reading the others.
    """
    if order is None:
        yield ("true", []), ""
        return
    for span in spans(cursor, order):
        yield span, f"order by {ordering(order)}"


def spans(cursor: duckdb.DuckDBPyConnection, order: Order) -> Iterator[Condition]:
    """Yield the conditions of consecutive spans of time, each with few enough rows to sort them in memory."""
    every = f"select distinct labelled_at from items where rowid % {SORTED_ROWS} = 0 order by 1"  # noqa: S608
    starts = [row[0] for row in cursor.execute(every).fetchall()]
    found = [*pairwise([None, *starts, None])]
    for span in found if order is Order.OLDEST else reversed(found):
        yield _within(span)


def _within(span: Sequence[datetime | None]) -> Condition:
    start, end = span
    found = [("labelled_at >= ?", start)] if start else []
    found += [("labelled_at < ?", end)] if end else []
    return " and ".join(["true", *(sql for sql, _ in found)]), [value for _, value in found]
