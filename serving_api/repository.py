"""Every query of the replica's tables."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import duckdb

from core.models import AnnotationStatus
from serving_api.query import (
    URGENCY,
    Condition,
    DisputedQuery,
    PageQuery,
    disputed_conditions,
    ordering,
    page_conditions,
)
from serving_api.replica_tables import Role

Row = dict[str, Any]

_ITEM = (
    "id, dataset, text, label, status, agreement, votes, annotations, confidence, rule, rule_version, decided_by, "
    "source, external_id, claimed_label, score, metadata, enrichment, received_at, labelled_at"
)
_IDS_AT_ONCE = 100
_ANNOTATION = "annotator, role, value, status, created_at, updated_at"


class Point(NamedTuple):
    """A version, of the change feed of one database."""

    identity: str
    version: int


def get_point(cursor: duckdb.DuckDBPyConnection) -> Point:
    """Return the point of the change feed that this transaction sees."""
    return Point(*cursor.execute("select identity, version from state").fetchall()[0])


def list_items(cursor: duckdb.DuckDBPyConnection, page: PageQuery, count: int) -> list[Row]:
    """Return the first `count` items of what comes after the page's position."""
    where, values = page_conditions(page)
    order = ordering(page.texts.order)
    # Sorting narrow rows first and fetching the few wide ones afterwards is four times as fast.
    chosen = f"select rowid from items where {where} order by {order} limit ?"  # noqa: S608 - known columns only
    return _rows(
        cursor,
        f"select {_ITEM} from items where rowid in ({chosen}) order by {order}",  # noqa: S608
        [*values, count],
    )


def list_disputed(cursor: duckdb.DuckDBPyConnection, query: DisputedQuery, count: int) -> list[Row]:
    """Return the first `count` items that want a decision and come after the query's position.

    Each has its place in the list beside: `urgency`.
    """
    where, values = disputed_conditions(query)
    order = "urgency desc, id"
    chosen = f"select rowid, {URGENCY} as urgency from items where {where} order by {order} limit ?"  # noqa: S608
    return _rows(
        cursor,
        f"select {_ITEM}, urgency from items join ({chosen}) as chosen on chosen.rowid = items.rowid "  # noqa: S608
        f"order by {order}",
        [*values, count],
    )


def get_item_or_none(cursor: duckdb.DuckDBPyConnection, id_: UUID) -> Row | None:
    """Return the labelled text with this id."""
    found = _rows(cursor, f"select {_ITEM} from items where id = ?", [id_])  # noqa: S608
    return found[0] if found else None


def list_annotations(cursor: duckdb.DuckDBPyConnection, text_id: UUID) -> list[Row]:
    """Return the annotations of one text, those of adjudicators too, the oldest first."""
    statement = f"select {_ANNOTATION} from annotations where text_id = ? order by created_at, id"  # noqa: S608
    return _rows(cursor, statement, [text_id])


def count_by(cursor: duckdb.DuckDBPyConnection, dataset: str, expression: str) -> dict[str, int]:
    """Return the number of a dataset's items by an expression over known columns; null counts as ''."""
    statement = f"""
        select coalesce(({expression})::varchar, '') as value, count(*) from items where dataset = ?
        group by all order by all
    """  # noqa: S608
    return dict(cursor.execute(statement, [dataset]).fetchall())


def count_by_annotator(cursor: duckdb.DuckDBPyConnection, dataset: str) -> dict[str, int]:
    """Return the number of submitted annotations of a dataset by annotator, without what adjudicators said."""
    statement = """
        select annotator, count(*) from annotations where dataset = ? and status = ? and role = ?
        group by all order by all
    """
    values = [dataset, AnnotationStatus.SUBMITTED.value, Role.ANNOTATOR.value]
    return dict(cursor.execute(statement, values).fetchall())


def list_chosen(
    cursor: duckdb.DuckDBPyConnection, ids: Sequence[UUID] | None, condition: Condition, order: str, count: int
) -> list[Row]:
    """Return the first `count` items that fit the condition, by this ORDER BY clause, of these ids or of all."""
    where, values = condition
    given, items = _among(ids)
    statement = f"{given} select {_ITEM} from {items} where {where} order by {order} limit ?"  # noqa: S608
    return _rows(cursor, statement, [*(ids or []), *values, count])


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

    DuckDB looks into its index only for few ids at once, and where nothing else is asked: thirty times as fast.
    """
    if ids is None:
        return "", "items"
    parts = [len(ids[start : start + _IDS_AT_ONCE]) for start in range(0, len(ids), _IDS_AT_ONCE)]
    chosen = [f"select * from items where id in ({', '.join('?' * part)})" for part in parts]  # noqa: S608
    return f"with chosen as materialized ({' union all '.join(chosen or ['from items where false'])})", "chosen"


def _rows(cursor: duckdb.DuckDBPyConnection, statement: str, values: list[Any]) -> list[Row]:
    cursor.execute(statement, values)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
