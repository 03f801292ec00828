"""Pages of a search: the index names candidates, the replica decides, both as of one version."""

from uuid import UUID

import duckdb

from serving_api.replica.query_pool import check_time
from serving_api.replica.repository import get_point
from serving_api.search.candidates import RANKED, IndexSnapshot
from serving_api.search.index import LabelPosition
from serving_api.search.repository import changed_after, unchanged_since
from serving_api.texts import repository
from serving_api.texts.parameters import Order
from serving_api.texts.query import PageQuery, TextsQuery, microseconds, timestamp
from serving_api.texts.repository import Row, all_of, conditions, ordering, page_conditions

# Some candidates don't match: read this many more than requested.
_SPARE = 10


def list_hits(
    cursor: duckdb.DuckDBPyConnection, page: PageQuery, count: int, snapshot: IndexSnapshot | None, until: float
) -> list[Row]:
    """Return the first `count` items of what comes after the page's position, each with its `rank`.

    Without an index all texts are read.

    Raises:
        Unavailable: it was not done `until` then, by the monotonic clock.
    """
    if page.texts.order is Order.RELEVANCE:
        return _ranked(cursor, page, count, snapshot, until)
    if snapshot is None:
        rows = repository.list_chosen(cursor, None, page_conditions(page), ordering(page.texts.order), count)
    else:
        rows = list_in_order(cursor, page, count, snapshot, until)
    return [row | {"rank": microseconds(row["labelled_at"])} for row in rows]


def list_ranked(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, snapshot: IndexSnapshot | None, until: float
) -> tuple[list[tuple[int, UUID]], bool]:
    """Return the best matches as (negative relevance, id), at most `RANKED`, and whether there are no others.

    Without an index all texts are read.

    Raises:
        Unavailable: it was not done `until` then, by the monotonic clock.
    """
    asked, relevance = conditions(query), query.search.relevance()
    if snapshot is None:
        found = repository.list_ranked(cursor, None, asked, relevance, RANKED)
        whole = len(found) < RANKED
    else:
        found = []
        if snapshot.point != get_point(cursor):
            found = repository.list_ranked(
                cursor, None, all_of([changed_after(snapshot.point.version), asked]), relevance, RANKED
            )
        as_indexed = all_of([unchanged_since(snapshot.point.version), asked])
        ids = snapshot.best(query)
        check_time(until)
        whole = max(len(ids), len(found)) < RANKED
        found += repository.list_ranked(cursor, ids, as_indexed, relevance, RANKED)
    ranked = sorted((-rank, id_) for rank, id_ in found)
    return ranked[:RANKED], whole and len(ranked) <= RANKED


def list_in_order(
    cursor: duckdb.DuckDBPyConnection, page: PageQuery, count: int, snapshot: IndexSnapshot, until: float
) -> list[Row]:
    """Return the first `count` items of what comes after the page's position, by time.

    Raises:
        Unavailable: it was not done `until` then, by the monotonic clock.
    """
    texts, asked = page.texts, page_conditions(page)
    as_indexed = all_of([unchanged_since(snapshot.point.version), asked])
    found = []
    if snapshot.point != get_point(cursor):
        found = repository.list_chosen(
            cursor, None, all_of([changed_after(snapshot.point.version), asked]), ordering(texts.order), count
        )
    after = timestamp(page.after.rank) if page.after else None
    for ids, last in snapshot.in_order(texts, after, min(count + _SPARE, RANKED)):
        check_time(until)
        found += repository.list_chosen(cursor, ids, as_indexed, ordering(texts.order), len(ids))
        # Texts with the last position may come before it, and be in the next list.
        if last is not None and sum(_is_before(row, last, texts.order) for row in found) >= count:
            break
    return sorted(found, key=lambda row: _sort_key(row, texts.order))[:count]


def _ranked(
    cursor: duckdb.DuckDBPyConnection, page: PageQuery, count: int, snapshot: IndexSnapshot | None, until: float
) -> list[Row]:
    ranked, _ = list_ranked(cursor, page.texts, snapshot, until)
    after = (-page.after.rank, page.after.id) if page.after else None
    shown = [entry for entry in ranked if after is None or entry > after][:count]
    wanted = [id_ for _, id_ in shown]
    rows = {row["id"]: row for row in repository.list_chosen(cursor, wanted, all_of([]), "id", len(wanted))}
    return [rows[id_] | {"rank": -rank} for rank, id_ in shown]


def _sort_key(row: Row, order: Order) -> tuple[int, int]:
    rank, id_ = microseconds(row["labelled_at"]), row["id"].int
    return (-rank, id_) if order is Order.NEWEST else (rank, -id_)


def _is_before(row: Row, last: int, order: Order) -> bool:
    number = LabelPosition(row["labelled_at"], row["id"]).number
    return number > last if order is Order.NEWEST else number < last
