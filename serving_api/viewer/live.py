"""Rows of the live labels: read from the replica, all of one version."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import date
from typing import Any
from uuid import UUID

import duckdb

from serving_api.columns import typed
from serving_api.search.candidates import Snapshot
from serving_api.search.pages import list_ranked
from serving_api.texts.paging import Sample
from serving_api.texts.query import Condition, TextsQuery, all_of
from serving_api.viewer import offsets
from serving_api.viewer.columns import LIVE, Column
from serving_api.viewer.conditions import LIVE_NAMES, condition_of, keys_of, list_page
from serving_api.viewer.slices import Filter, NumberedRow, Slice, Span
from serving_api.viewer.statistics import make_statistics

Connection = duckdb.DuckDBPyConnection


def read_rows(cursor: Connection, dataset: str, span: Span, sample: Sample) -> Slice:
    """Return rows in the order of their labels, the oldest first."""
    days = offsets.get_days(cursor, dataset)
    end = min(span.offset + span.length, days.total)
    if span.offset >= end:
        return Slice([], days.total)
    window = offsets.windows_of(cursor, days, sample, span.offset, end)
    where, values = offsets.condition_of(dataset, window)
    statement = f"select {typed()} from items where {where} order by {offsets.ORDER} limit ? offset ?"  # noqa: S608
    paging = [end - span.offset, span.offset - window.before]
    rows = cursor.execute(statement, [*values, *paging]).fetchall()
    return Slice([NumberedRow(span.offset + index, row) for index, row in enumerate(rows)], days.total)


def filter_rows(cursor: Connection, dataset: str, asked: Filter, span: Span) -> Slice:
    """Return rows that fit, in the order asked for, then in the order of their labels."""
    where = all_of([("dataset = ?", [dataset]), condition_of(asked.where, LIVE_NAMES)])
    keys = keys_of(asked.orderby, LIVE_NAMES)
    total, found = list_page(cursor, "id, labelled_at", "items", where, keys, offsets.ORDER, span)
    return Slice(_numbered(cursor, dataset, found), total)


def search_rows(
    cursor: Connection, query: TextsQuery, span: Span, snapshot: Snapshot | None, until: float
) -> Slice:
    """Return rows that match, the best first; where there are more than can be ranked, the best of them."""
    ranked, whole = list_ranked(cursor, query, snapshot, until)
    wanted = [id_ for _, id_ in ranked[span.offset : span.offset + span.length]]
    where = f"id in ({', '.join('?' * len(wanted))})" if wanted else "false"
    statement = f"select id, labelled_at from items where {where}"  # noqa: S608
    moments = dict(cursor.execute(statement, wanted).fetchall())
    return Slice(_numbered(cursor, query.dataset, [(id_, moments[id_]) for id_ in wanted]), len(ranked), whole)


def newest_day(cursor: Connection, dataset: str) -> date | None:
    """Return the day of the newest label; None without labels."""
    days = offsets.get_days(cursor, dataset).days
    return max(days, default=None)


def facts(cursor: Connection, dataset: str) -> dict[str, int]:
    """Return how many rows there are, and how many bytes they have as Arrow holds them; there is no file."""
    widths = [_bytes_of(column) for column in LIVE]
    statement = f"select count(*), {' + '.join(widths)} from items where dataset = ?"  # noqa: S608
    rows, size = cursor.execute(statement, [dataset]).fetchall()[0]
    return {"rows": rows, "memory_bytes": size, "file_bytes": 0}


def statistics(cursor: Connection, dataset: str) -> dict[str, Any]:
    """Return the statistics of all columns."""
    meant: Condition = ("dataset = ?", [dataset])
    return make_statistics(cursor, LIVE, LIVE_NAMES, lambda _: nullcontext(("items", meant)))


def _bytes_of(column: Column) -> str:
    if column.is_text:
        # Where each string begins takes four bytes, and the end of the last one does.
        name = LIVE_NAMES.get(column.name, column.quoted)
        return f"coalesce(sum(strlen({name})), 0)::bigint + 4 * (count(*) + 1)"
    return f"{4 if column.dtype == 'int32' else 8} * count(*)"


def _numbered(cursor: Connection, dataset: str, found: Sequence[tuple[UUID, Any]]) -> list[NumberedRow]:
    """Return these rows with their places, in the order given."""
    if not found:
        return []
    numbers = offsets.get_places(cursor, offsets.get_days(cursor, dataset), found)
    ids = [id_ for id_, _ in found]
    statement = f"select {typed()} from items where id in ({', '.join('?' * len(ids))})"  # noqa: S608
    rows = {UUID(row[0]): row for row in cursor.execute(statement, ids).fetchall()}
    return [NumberedRow(number, rows[id_]) for number, id_ in zip(numbers, ids, strict=True)]
