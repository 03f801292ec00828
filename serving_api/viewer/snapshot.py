"""Filters and searches in a snapshot's split: DuckDB looks at what is streamed from its file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from serving_api.search.matching import Search
from serving_api.texts.query import Condition
from serving_api.viewer.columns import Column
from serving_api.viewer.conditions import Key, condition_of, keys_of, list_page
from serving_api.viewer.parquet_rows import PLACE, SplitReader
from serving_api.viewer.slices import Filter, Slice, Span
from serving_api.viewer.statistics import make_statistics
from serving_api.viewer.where import columns_in

Connection = duckdb.DuckDBPyConnection

# A view of the connection's own, which no other one sees.
_ROWS = "split_rows"


def filter_rows(cursor: Connection, split: SplitReader, asked: Filter, span: Span) -> Slice:
    """Return rows that fit, in the order asked for, then in the split's own."""
    where, keys = condition_of(asked.where, {}), keys_of(asked.orderby, {})
    return _read(cursor, split, list(_looked_at(asked)), where, keys, span)


def search_rows(cursor: Connection, split: SplitReader, search: Search, span: Span) -> Slice:
    """Return all rows that match, the best first, then in the split's own order."""
    return _read(cursor, split, ["text"], search.condition(), [Key(search.relevance(), "desc")], span)


def statistics(cursor: Connection, split: SplitReader) -> dict[str, Any]:
    """Return the statistics of all columns."""

    @contextmanager
    def rows(columns: Sequence[Column]) -> Iterator[tuple[str, Condition]]:
        with _streamed(cursor, split, [column.name for column in columns]) as relation:
            yield relation, ("true", [])

    return make_statistics(cursor, split.columns, {}, rows)


@contextmanager
def _streamed(cursor: Connection, split: SplitReader, names: Sequence[str]) -> Iterator[str]:
    """Give the name of a relation with these columns of the split; it can be read once.

    Raises:
        Unavailable: it took too long.
        OSError: the storage does not answer.
    """
    cursor.register(_ROWS, split.batches(names))
    try:
        yield _ROWS
    except duckdb.Error as error:
        raise split.failure or error from error
    finally:
        cursor.unregister(_ROWS)


def _read(
    cursor: Connection,
    split: SplitReader,
    names: Sequence[str],
    where: Condition,
    keys: Sequence[Key],
    span: Span,
) -> Slice:
    with _streamed(cursor, split, names) as rows:
        total, found = list_page(cursor, PLACE, rows, where, keys, PLACE, span)
    return Slice(split.read_places([place for (place,) in found]), total)


def _looked_at(asked: Filter) -> Iterator[str]:
    columns: list[Column] = [*(columns_in(asked.where) if asked.where else ()), *(o.column for o in asked.orderby)]
    yield from dict.fromkeys(column.name for column in columns)
