"""The queries of the replica that count texts and answers for the dashboard."""

from datetime import date, timedelta
from typing import Any

import duckdb

from core.models import AnnotationStatus
from serving_api.replica.tables import SEPARATOR
from serving_api.texts.query import TextsQuery, annotator_conditions, conditions

VALUES_MAX = 50

# What is counted for each filter, of the items.
KINDS = {
    "label": "label",
    "status": "status",
    "source": "source",
    "language": "language",
    "agreement": "floor(agreement * 10 + 1e-9) / 10",
}

Counted = list[tuple[Any, int]]  # a value, and the number of texts with it; the most frequent first


def count_texts(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> int:
    """Return the number of texts that a query means."""
    where, values = conditions(query)
    statement = f"select count(*) from items where {where}"  # noqa: S608 - known columns only
    number: int = cursor.execute(statement, values).fetchall()[0][0]
    return number


def count_kinds(cursor: duckdb.DuckDBPyConnection, query: TextsQuery, kinds: list[str]) -> dict[str, Counted]:
    """Return the most frequent values of each of these kinds, in one pass over the texts."""
    where, values = conditions(query)
    columns = ", ".join(f"{KINDS[kind]} as {kind}" for kind in kinds)
    sets = ", ".join(f"({kind})" for kind in kinds)
    numbers = ", ".join(f"grouping({kind}) = 0" for kind in kinds)
    chosen = ", ".join(f"{kind}::varchar" for kind in kinds)
    statement = f"""
        with chosen as (select {columns} from items where {where}),
        counted as (
            select list_position([{numbers}], true) as kind, coalesce({chosen}) as value, count(*) as texts
            from chosen group by grouping sets ({sets})
        )
        select kind, value, texts from counted
        qualify row_number() over (partition by kind order by texts desc, value) <= ?
        order by kind, texts desc, value
    """  # noqa: S608
    found: dict[str, Counted] = {kind: [] for kind in kinds}
    for kind, value, texts in cursor.execute(statement, [*values, VALUES_MAX]).fetchall():
        found[kinds[kind - 1]].append((value, texts))
    return found


def count_annotators(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> Counted:
    """Return the annotators who answered the most of a query's texts."""
    where, values = conditions(query)
    statement = f"""
        with groups as (
            select trim(annotators, ?) as names, count(*) as texts from items
            where {where} and annotators <> '' group by all
        )
        select annotator, sum(texts)::bigint as answers
        from (select unnest(string_split(names, ?)) as annotator, texts from groups)
        group by annotator order by answers desc, annotator limit ?
    """  # noqa: S608
    bound = [SEPARATOR, *values, SEPARATOR, VALUES_MAX]
    return cursor.execute(statement, bound).fetchall()


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
