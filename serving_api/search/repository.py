"""Reads the replica for searches: the entries of the index, and pages of its candidates."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import duckdb

from serving_api.replica.query_pool import check_time
from serving_api.replica.repository import get_point
from serving_api.replica.tables import SEPARATOR
from serving_api.search import index
from serving_api.search.candidates import RANKED, IndexSnapshot, tags_of
from serving_api.search.index import IndexEntry, place_of
from serving_api.texts import repository
from serving_api.texts.matching import FOLDED
from serving_api.texts.parameters import Order
from serving_api.texts.query import PageQuery, TextsQuery, timestamp
from serving_api.texts.repository import Condition, Row, all_of, conditions, ordering, page_conditions

_FETCHED = 1_000


def list_starts(cursor: duckdb.DuckDBPyConnection) -> list[datetime]:
    """Return the timestamps that divide the texts into blocks; none if there are no texts."""
    statement = """
        select distinct labelled_at from
            (select labelled_at, row_number() over (order by labelled_at) as number from items)
        where number % ? = 1 order by 1
    """
    return [row[0] for row in cursor.execute(statement, [index.BLOCK_TEXTS]).fetchall()]


def blocks(starts: list[datetime]) -> Iterator[Condition]:
    """Yield the WHERE clauses that divide the items at these timestamps."""
    for start, end in pairwise([*starts, None]):
        yield ("labelled_at >= ? and labelled_at < ?", [start, end]) if end else ("labelled_at >= ?", [start])


def changed_after(version: int) -> Condition:
    """Return the WHERE clause of the items that changed after a version."""
    return "version > ?", [version]


def unchanged_since(version: int) -> Condition:
    """Return the WHERE clause of the items that did not change after a version."""
    return "version <= ?", [version]


def read_entries(cursor: duckdb.DuckDBPyConnection, condition: Condition) -> Iterator[IndexEntry]:
    """Stream the index entries of the items that meet the condition, in the order of their labels."""
    where, values = condition
    statement = f"""
        select id, dataset, {FOLDED}, label, status, complete, source, language, agreement, annotations,
               labelled_at, annotators
        from items where {where} order by labelled_at
    """  # noqa: S608 - known columns only
    cursor.execute(statement, values)
    while rows := cursor.fetchmany(_FETCHED):
        yield from (_entry(row) for row in rows)


def list_withdrawn(cursor: duckdb.DuckDBPyConnection, version: int) -> list[UUID]:
    """Return the texts that lost their label after a version."""
    found = cursor.execute("select id from tombstones where version > ?", [version]).fetchall()
    return [row[0] for row in found]


def _entry(row: tuple[Any, ...]) -> IndexEntry:
    id_, dataset, folded, label, status, complete, source, language, *numbers, labelled_at, annotators = row
    agreement, annotations = numbers
    tags = tags_of(dataset, label=label, status=status, complete=str(complete), source=source, language=language)
    said = tuple(f"annotator {name}" for name in annotators.split(SEPARATOR) if name)
    return IndexEntry(id_, labelled_at, folded, (*tags, *said), agreement, annotations)


# Some candidates don't match: read this many more than requested.
_SPARE = 10


def list_hits(
    cursor: duckdb.DuckDBPyConnection, page: PageQuery, count: int, snapshot: IndexSnapshot | None, until: float
) -> list[Row]:
    """Return the first `count` items after the page's position, each with its `rank`.

    Without an index all texts are read.

    Raises:
        Unavailable: it was not done `until` then, by the monotonic clock.
    """
    if page.texts.order is Order.RELEVANCE:
        return _ranked(cursor, page, count, snapshot, until)
    if snapshot is None:
        return repository.list_chosen(cursor, None, page_conditions(page), ordering(page.texts.order), count)
    return list_in_order(cursor, page, count, snapshot, until)


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
    """Return the first `count` items after the page's position, by time, each with its `rank`.

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
    rank, id_ = row["rank"], row["id"].int
    return (-rank, id_) if order is Order.NEWEST else (rank, -id_)


def _is_before(row: Row, last: int, order: Order) -> bool:
    place = place_of(row["labelled_at"], row["id"])
    return place > last if order is Order.NEWEST else place < last
