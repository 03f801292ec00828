"""The queries of the replica that count texts and answers for the dashboard."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import duckdb

from core.models import AnnotationStatus
from serving_api.replica.tables import KINDS
from serving_api.texts.query import TextsQuery, annotator_conditions, conditions, is_counted, kind_conditions
from serving_api.texts.repository import sum_texts

VALUES_MAX = 50

# What is counted for each filter, of the items; annotators are counted by their names in `annotators`.
_VALUES = {
    "label": "label",
    "status": "status",
    "complete": "complete",
    "source": "source",
    "language": "language",
    "agreement": "floor(agreement * 10 + 1e-9) / 10",
}
ANNOTATOR = "annotator"
FACETS = (*_VALUES, ANNOTATOR)

Counted = list[tuple[Any, int]]  # a value, and the number of texts with it; the most frequent first


def count_texts(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> int:
    """Return the number of texts that a query means."""
    if is_counted(query):
        return sum_texts(cursor, *kind_conditions(query))
    where, values = conditions(query)
    statement = f"select count(*) from items where {where}"  # noqa: S608 - known columns only
    number: int = cursor.execute(statement, values).fetchall()[0][0]
    return number


def count_values(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, facets: Sequence[str]
) -> dict[str, Counted]:
    """Return the most frequent values of each of these facets among the texts that a query means."""
    kept = [facet for facet in facets if facet in KINDS] if is_counted(query) else []
    read = [facet for facet in facets if facet not in kept]
    found: dict[str, Counted] = {}
    if kept:
        where, values = kind_conditions(query)
        chosen = f"select {', '.join(kept)}, texts from totals where {where}"  # noqa: S608
        found |= _count(cursor, chosen, values, kept)
    if read:
        where, values = conditions(query)
        columns = ", ".join(f"{_VALUES.get(facet, 'annotators')} as {facet}" for facet in read)
        chosen = f"select {columns}, 1 as texts from items where {where}"  # noqa: S608
        found |= _count(cursor, chosen, values, read)
    return found


def _count(
    cursor: duckdb.DuckDBPyConnection, chosen: str, values: list[Any], facets: Sequence[str]
) -> dict[str, Counted]:
    """Count the rows of `chosen`, which is read once."""
    parts = [_count_one(number, facet) for number, facet in enumerate(facets)]
    statement = f"""
        with chosen as materialized ({chosen})
        {" union all ".join(parts)}
        order by facet, texts desc, value
    """
    found: dict[str, Counted] = {facet: [] for facet in facets}
    for number, value, texts in cursor.execute(statement, values).fetchall():
        found[facets[number]].append((value, texts))
    return found


def _count_one(number: int, facet: str) -> str:
    counted = f"select {facet} as value, sum(texts)::bigint as texts from chosen group by all"  # noqa: S608
    if facet == ANNOTATOR:
        # By the names together first: there are fewer of these than texts.
        names = "unnest(string_split(trim(value, chr(0)), chr(0))) as value"  # replica.tables.SEPARATOR
        counted = f"select {names}, texts from ({counted}) where value <> ''"  # noqa: S608
        counted = f"select value, sum(texts)::bigint as texts from ({counted}) group by all"  # noqa: S608
    return f"""
        select * from (
            select {number} as facet, value::varchar as value, texts from ({counted})
            order by texts desc, value limit {VALUES_MAX}
        )
    """  # noqa: S608


def count_labels_by_day(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, days: int
) -> tuple[date | None, list[tuple[date, str | None, int]]]:
    """Return the first of so many days up to the last one with a label, and the texts of each day by label."""
    where, values = conditions(query)
    newest = f"select max(labelled_at)::date from items where {where}"  # noqa: S608
    last: date | None = cursor.execute(newest, values).fetchall()[0][0]
    if last is None:
        return None, []
    first = last - timedelta(days=days - 1)
    statement = f"""
        select labelled_at::date, label, count(*) from items where {where} and labelled_at >= ?
        group by all order by all
    """  # noqa: S608
    return first, cursor.execute(statement, [*values, first]).fetchall()


def count_answers_by_day(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, first: date
) -> list[tuple[date, str, int]]:
    """Return the number of submitted answers of each annotator on each day from `first` on."""
    where, values = annotator_conditions(query)
    statement = f"""
        select created_at::date, annotator, count(*) from annotations
        where {where} and status = ? and created_at >= ? group by all order by all
    """  # noqa: S608
    return cursor.execute(statement, [*values, AnnotationStatus.SUBMITTED.value, first]).fetchall()
