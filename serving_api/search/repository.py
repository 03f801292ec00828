"""Queries that read the replica for the search index."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import duckdb

from serving_api.replica.tables import SEPARATOR
from serving_api.search import index
from serving_api.search.candidates import tags_of
from serving_api.search.index import IndexEntry, LabelPosition
from serving_api.texts.matching import FOLDED
from serving_api.texts.repository import Condition

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
    return IndexEntry(LabelPosition(labelled_at, id_), folded, (*tags, *said), agreement, annotations)
