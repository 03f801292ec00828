"""Conditions and queries of labelled texts, their annotations and their totals."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import duckdb

from core.models import Decider, LabelStatus
from serving_api.replica.tables import KINDS, SEPARATOR, Role
from serving_api.texts.parameters import FilterParameters, Order
from serving_api.texts.query import PageQuery, RankedQuery, Ranking, TextsQuery, timestamp

Condition = tuple[str, list[Any]]

# Filters without totals.
_UNCOUNTED = set(FilterParameters.model_fields) - {"dataset", "match", *KINDS}


def conditions(query: TextsQuery) -> Condition:
    """Return the WHERE clause over `items` and its values."""
    filters = query.filters
    found: list[Condition] = [("dataset = ?", [query.dataset])]
    if query.labels:
        found.append((f"label in ({', '.join('?' * len(query.labels))})", list(query.labels)))
    comparisons = {
        "source = ?": filters.source,
        "language = ?": filters.language,
        "status = ?": filters.status,
        "complete = ?": filters.complete,
        "agreement >= ?": filters.min_agreement,
        "annotations >= ?": filters.min_annotations,
        "predicted_label = ?": filters.predicted_label,
        "labelled_at > ?": filters.labelled_after,
        "labelled_at < ?": filters.labelled_before,
    }
    found += [(sql, [value]) for sql, value in comparisons.items() if value is not None]
    if filters.annotator is not None:
        name = f"{SEPARATOR}{filters.annotator}{SEPARATOR}"
        found.append(("contains(annotators, ?)", [name]))
    if filters.q is not None:
        found.append(query.search.condition())
    return all_of(found)


def kind_conditions(query: TextsQuery) -> Condition:
    """Return the WHERE clause over `totals` for the query's label, status, source, language and `complete`."""
    kinds = query.filters.model_dump(include={"source", "language", "status", "complete"})
    return conditions(replace(query, filters=FilterParameters.model_construct(**kinds)))


def is_counted(query: TextsQuery) -> bool:
    """Whether the query selects whole kinds of texts, whose number `totals` has."""
    return not query.filters.model_dump(include=_UNCOUNTED, exclude_none=True)


def page_conditions(page: PageQuery) -> Condition:
    """Return the WHERE clause of the items after the page's position."""
    return all_of([conditions(page.texts), _behind(page)])


def _behind(page: PageQuery) -> Condition:
    """Return the WHERE clause of the page's position."""
    if page.after is None:
        return "true", []
    before, behind = ("<", ">") if page.texts.order is Order.NEWEST else (">", "<")
    labelled_at = timestamp(page.after.rank)
    # The first comparison is redundant, but DuckDB skips row groups by it.
    sql = f"labelled_at {before}= ? and (labelled_at {before} ? or id {behind} ?)"
    return sql, [labelled_at, labelled_at, page.after.id]


class _Ranked(NamedTuple):
    """The texts of a ranking: their condition, which takes `RankedQuery.below`, and how they are ranked."""

    condition: str
    rank: str
    direction: str


_RANKINGS = {
    # Complete texts above all others; among either, disputes by their number of annotations, then labels by their
    # distance from certainty, in millionths. All disputes are above two millions, and all of this is below 10^16.
    Ranking.DISPUTED: _Ranked(
        f"(status = '{LabelStatus.DISPUTED}' or (decided_by = '{Decider.ANNOTATORS}' and confidence < ?))",
        f"""
        (if(complete, 10000000000000000, 0) +
         case when status = '{LabelStatus.DISPUTED}' then (1 + annotations::bigint) * 1000000
         else ((1 - confidence) * 1000000)::bigint end)
        """,
        "desc",
    ),
    # By the quality of the label, in millionths of a millionth.
    Ranking.SUSPECTS: _Ranked(
        f"status = '{LabelStatus.LABELLED}' and predicted_label <> label and quality < ?",
        "(quality * 1000000000000)::bigint",
        "asc",
    ),
}


def said_by_annotators(dataset: str) -> Condition:
    """Return the WHERE clause over `annotations` for a dataset's annotators, without adjudicators."""
    return "dataset = ? and role = ?", [dataset, Role.ANNOTATOR.value]


def annotator_conditions(query: TextsQuery) -> Condition:
    """Return the WHERE clause over `annotations` for these texts' annotators, without adjudicators."""
    found = [said_by_annotators(query.dataset)]
    if query.labels or query.filters.model_dump(exclude_none=True, exclude={"dataset", "match"}):
        where, values = conditions(query)
        found.append((f"text_id in (select id from items where {where})", values))  # noqa: S608
    return all_of(found)


def ordering(order: Order) -> str:
    """Return the ORDER BY clause; the id decides between texts labelled in the same microsecond."""
    return "labelled_at desc, id" if order is Order.NEWEST else "labelled_at, id desc"


def all_of(found: list[Condition]) -> Condition:
    """Return the WHERE clause that combines conditions with `and`."""
    return " and ".join(sql for sql, _ in found) or "true", [value for _, values in found for value in values]


def time_window(begin: datetime | None, end: datetime | None, newest_first: bool) -> Condition:
    """Return the WHERE clause for the labels from `begin` to `end`, so that each text is in one range only."""
    found: list[tuple[str, datetime]] = []
    if begin:
        found.append(("labelled_at <= ?" if newest_first else "labelled_at >= ?", begin))
    if end:
        found.append(("labelled_at > ?" if newest_first else "labelled_at < ?", end))
    values: list[Any] = [moment for _, moment in found]
    return " and ".join(sql for sql, _ in found) or "true", values


Row = dict[str, Any]

# The columns that pages need: the rank of an item, and its JSON object, ready to be sent.
READY = "id, labelled_at, document"
_IDS_AT_ONCE = 100
_ANNOTATION = "annotator, role, value, status, created_at, updated_at"


def list_items(
    cursor: duckdb.DuckDBPyConnection, page: PageQuery, window: Condition, count: int, *, is_narrow: bool = False
) -> list[Row]:
    """Return the first `count` items after the page's position and in the window, each with its `rank`.

    Their ids are strings: making UUIDs takes a tenth of a page's time. In a window that `is_narrow`, DuckDB checks
    the other conditions only for the rows in the window; else it compares strings of the whole row group, 122,880.
    """
    where, values = conditions(page.texts)
    if is_narrow:  # an `or` over several columns is no condition for the scan; no id is null
        where = f"(id is null or ({where}))"
    where, values = all_of([(where, values), _behind(page), window])
    order = ordering(page.texts.order)
    statement = f"""
        select id::varchar, epoch_us(labelled_at), document from items
        where {where} order by {order} limit ?
    """  # noqa: S608 - known columns only
    found = cursor.execute(statement, [*values, count]).fetchall()
    return [{"id": id_, "rank": rank, "document": document} for id_, rank, document in found]


def list_timestamps(cursor: duckdb.DuckDBPyConnection, each: int) -> list[datetime]:
    """Return the `labelled_at` of one row in `each`, in order."""
    statement = "select labelled_at from items where rowid % ? = 0 order by labelled_at"
    return [timestamp for (timestamp,) in cursor.execute(statement, [each]).fetchall()]


def sum_texts(cursor: duckdb.DuckDBPyConnection, where: str, values: list[Any]) -> int:
    """Return the number of texts of the kinds that a WHERE clause over `totals` leaves."""
    statement = f"select coalesce(sum(texts), 0)::bigint from totals where {where}"  # noqa: S608 - known columns only
    number: int = cursor.execute(statement, values).fetchall()[0][0]
    return number


def list_by_rank(cursor: duckdb.DuckDBPyConnection, query: RankedQuery, count: int) -> list[Row]:
    """Return the first `count` items of a ranking that come after the query's position, each with its `rank`."""
    condition, rank, direction = _RANKINGS[query.ranking]
    found: list[Condition] = [conditions(query.texts), (condition, [query.below])]
    if query.after:
        behind, after = "<" if direction == "desc" else ">", query.after.rank
        found.append((f"({rank} {behind} ? or ({rank} = ? and id > ?))", [after, after, query.after.id]))
    where, values = all_of(found)
    order = f"rank {direction}, id"
    # Narrow rows are sorted, and only the few wide ones are fetched.
    chosen = f"select rowid, {rank} as rank from items where {where} order by {order} limit ?"  # noqa: S608
    return list_rows(
        cursor,
        f"select {READY}, quality, rank from items join ({chosen}) as chosen on chosen.rowid = items.rowid "  # noqa: S608
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
    # Sorting these few in DuckDB takes longer than finding them.
    rows = list_rows(cursor, statement, [text_id])
    return sorted(rows, key=lambda row: (row["created_at"], row.pop("id")))


def count_answers(cursor: duckdb.DuckDBPyConnection, dataset: str, annotator: str) -> int:
    """Return the number of an annotator's submitted annotations of a dataset, as `count_by_annotator`."""
    statement = "select answers from totals_by_annotator where dataset = ? and annotator = ?"
    found = cursor.execute(statement, [dataset, annotator]).fetchall()
    return found[0][0] if found else 0


def list_chosen(
    cursor: duckdb.DuckDBPyConnection, ids: Sequence[UUID] | None, condition: Condition, order: str, count: int
) -> list[Row]:
    """Return the first `count` items that fit the condition, by this ORDER BY clause, of these ids or of all.

    Each has its `rank` by time.
    """
    where, values = condition
    given, items = _among(ids)
    chosen = f"select {READY}, text, epoch_us(labelled_at) as rank from {items} where {where}"  # noqa: S608
    statement = f"{given} {chosen} order by {order} limit ?"
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
    """Return the rows of a query as dictionaries."""
    cursor.execute(statement, values)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
