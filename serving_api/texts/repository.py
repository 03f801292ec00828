"""Queries of labelled texts, their annotations and their totals."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import duckdb

from serving_api.replica.repository import Point as Point
from serving_api.replica.repository import get_point as get_point
from serving_api.texts.query import (
    URGENCY,
    Condition,
    DisputedQuery,
    PageQuery,
    disputed_conditions,
    ordering,
    page_conditions,
)

Row = dict[str, Any]

# The columns that pages need: the rank of an item, and its JSON object, ready to be sent.
READY = "id, labelled_at, document"
_IDS_AT_ONCE = 100
_ANNOTATION = "annotator, role, value, status, created_at, updated_at"


def list_items(cursor: duckdb.DuckDBPyConnection, page: PageQuery, window: Condition, count: int) -> list[Row]:
    """Return the first `count` items of what comes after the page's position and is in the window.

    Their ids are texts: to make a UUID of each takes Python a tenth of a page's time.
    """
    where, values = page_conditions(page)
    within, more_values = window
    order = ordering(page.texts.order)
    statement = f"""
        select id::varchar, labelled_at, document from items where {where} and {within} order by {order} limit ?
    """  # noqa: S608 - known columns only
    found = cursor.execute(statement, [*values, *more_values, count]).fetchall()
    return [{"id": id_, "labelled_at": labelled_at, "document": text} for id_, labelled_at, text in found]


def list_timestamps(cursor: duckdb.DuckDBPyConnection, each: int) -> list[datetime]:
    """Return the `labelled_at` of one row in `each`, in order."""
    statement = "select labelled_at from items where rowid % ? = 0 order by labelled_at"
    return [timestamp for (timestamp,) in cursor.execute(statement, [each]).fetchall()]


def sum_texts(cursor: duckdb.DuckDBPyConnection, where: str, values: list[Any]) -> int:
    """Return the number of texts of the kinds that a WHERE clause over `totals` leaves."""
    statement = f"select coalesce(sum(texts), 0)::bigint from totals where {where}"  # noqa: S608 - known columns only
    number: int = cursor.execute(statement, values).fetchall()[0][0]
    return number


def list_disputed(cursor: duckdb.DuckDBPyConnection, query: DisputedQuery, count: int) -> list[Row]:
    """Return the first `count` items that need a decision and come after the query's position.

    Each has its rank in the list: `urgency`.
    """
    where, values = disputed_conditions(query)
    order = "urgency desc, id"
    chosen = f"select rowid, {URGENCY} as urgency from items where {where} order by {order} limit ?"  # noqa: S608
    return list_rows(
        cursor,
        f"select {READY}, urgency from items join ({chosen}) as chosen on chosen.rowid = items.rowid "  # noqa: S608
        f"order by {order}",
        [*values, count],
    )


def get_item_or_none(cursor: duckdb.DuckDBPyConnection, id_: UUID) -> Row | None:
    """Return the labelled text with this id."""
    found = list_rows(cursor, f"select {READY}, dataset from items where id = ?", [id_])  # noqa: S608
    return found[0] if found else None


def list_annotations(cursor: duckdb.DuckDBPyConnection, text_id: UUID) -> list[Row]:
    """Return the annotations of one text, those of adjudicators too, the oldest first."""
    statement = f"select {_ANNOTATION}, id from annotations where text_id = ?"  # noqa: S608
    # To have DuckDB sort these few takes longer than to find them.
    rows = list_rows(cursor, statement, [text_id])
    return sorted(rows, key=lambda row: (row["created_at"], row.pop("id")))


def count_complete(cursor: duckdb.DuckDBPyConnection, dataset: str) -> int:
    """Return the number of a dataset's items that have as many annotations as it wants."""
    return sum_texts(cursor, "dataset = ? and complete", [dataset])


def count_by(cursor: duckdb.DuckDBPyConnection, dataset: str, kind: str) -> dict[str | None, int]:
    """Return the number of a dataset's items by one of `totals.KINDS`."""
    statement = f"""
        select {kind}, sum(texts)::bigint from totals where dataset = ? group by all order by all nulls first
    """  # noqa: S608
    return dict(cursor.execute(statement, [dataset]).fetchall())


def count_by_day(cursor: duckdb.DuckDBPyConnection, dataset: str) -> dict[str, int]:
    """Return the number of a dataset's items by the day of their labels."""
    statement = "select day::varchar, texts from totals_by_day where dataset = ? order by day"
    return dict(cursor.execute(statement, [dataset]).fetchall())


def count_by_annotator(cursor: duckdb.DuckDBPyConnection, dataset: str) -> dict[str, int]:
    """Return the number of submitted annotations of a dataset by annotator, without what adjudicators said."""
    statement = "select annotator, answers from totals_by_annotator where dataset = ? order by annotator"
    return dict(cursor.execute(statement, [dataset]).fetchall())


def count_answers(cursor: duckdb.DuckDBPyConnection, dataset: str, annotator: str) -> int:
    """Return the number of an annotator's submitted annotations of a dataset, as `count_by_annotator`."""
    statement = "select answers from totals_by_annotator where dataset = ? and annotator = ?"
    found = cursor.execute(statement, [dataset, annotator]).fetchall()
    return found[0][0] if found else 0


def list_chosen(
    cursor: duckdb.DuckDBPyConnection, ids: Sequence[UUID] | None, condition: Condition, order: str, count: int
) -> list[Row]:
    """Return the first `count` items that fit the condition, by this ORDER BY clause, of these ids or of all."""
    where, values = condition
    given, items = _among(ids)
    statement = f"{given} select {READY}, text from {items} where {where} order by {order} limit ?"  # noqa: S608
    return list_rows(cursor, statement, [*(ids or []), *values, count])


def list_ranked(
    cursor: duckdb.DuckDBPyConnection,
    ids: Sequence[UUID] | None,
    condition: Condition,
    relevance: Condition,
    count: int,
) -> list[tuple[int, UUID]]:
    """Return the relevance and the id of the `count` most relevant items, of these ids or of all."""
    where, values = condition
    given, items = _among(ids)
    statement = f"""
        {given} select {relevance[0]} as relevance, id from {items} where {where} order by 1 desc, 2 limit ?
    """  # noqa: S608
    return cursor.execute(statement, [*(ids or []), *relevance[1], *values, count]).fetchall()


def _among(ids: Sequence[UUID] | None) -> tuple[str, str]:
    """Return a WITH clause for the items with these ids, and its name; for all items none and their table.

    DuckDB uses its index only for a few ids, and without further conditions: thirty times as fast.
    """
    if ids is None:
        return "", "items"
    parts = [len(ids[start : start + _IDS_AT_ONCE]) for start in range(0, len(ids), _IDS_AT_ONCE)]
    chosen = [f"select * from items where id in ({', '.join('?' * part)})" for part in parts]  # noqa: S608
    return f"with chosen as materialized ({' union all '.join(chosen or ['from items where false'])})", "chosen"


def list_rows(cursor: duckdb.DuckDBPyConnection, statement: str, values: list[Any] | dict[str, Any]) -> list[Row]:
    """Return what a query finds, by the names of its columns."""
    cursor.execute(statement, values)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
