"""Queries that count texts and annotations: totals, facets, days, and the work of annotators."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import duckdb
import orjson

from core.models import AnnotationStatus
from serving_api.replica.tables import KINDS
from serving_api.statistics.agreement import Cells, Votes
from serving_api.texts.query import TextsQuery
from serving_api.texts.repository import (
    annotator_conditions,
    conditions,
    is_counted,
    kind_conditions,
    said_by_annotators,
    sum_texts,
)

# Longer than ten minutes without an answer is a pause.
_PAUSE_MICROSECONDS = 600_000_000

Pair = tuple[str, str]


class AnnotatorWork(NamedTuple):
    """An annotator's work."""

    annotator: str
    answers: int
    discarded: int
    first_at: datetime
    last_at: datetime
    steps: int  # from one answer, or discard, to the next, without pauses
    worked_microseconds: int  # in all steps


class AnswerCount(NamedTuple):
    """How often an annotator gave one answer to texts with one outcome."""

    annotator: str
    value: str
    label: str | None
    gold_label: str | None
    is_shared: bool  # whether others have answered, too
    texts: int


def count_votes(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> dict[Votes, int]:
    """Return the number of texts by their votes, of those that have two or more."""
    where, values = conditions(query)
    statement = f"""
        select votes, count(*) from items where {where} and annotations > 1 group by all order by all
    """  # noqa: S608 - known columns only
    rows = cursor.execute(statement, values).fetchall()
    return {tuple(sorted(orjson.loads(votes).items())): texts for votes, texts in rows}


def count_pair(cursor: duckdb.DuckDBPyConnection, query: TextsQuery, pair: Pair) -> Cells:
    """Return the number of texts that both annotators of a pair answered, by their answers."""
    where, values = _submitted(query)
    said = f"select text_id, value from annotations where {where} and annotator = ?"  # noqa: S608
    statement = f"""
        select one.value, other.value, count(*) from ({said}) as one join ({said}) as other using (text_id)
        group by all order by all
    """  # noqa: S608
    rows = cursor.execute(statement, [*values, pair[0], *values, pair[1]]).fetchall()
    return {(one, other): texts for one, other, texts in rows}


def count_pairs(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, pairs_max: int
) -> tuple[int, dict[Pair, Cells]]:
    """Return the number of pairs that share texts, and the counts of those that share the most."""
    where, values = _submitted(query)
    # Numbers for annotator and answer together: joining and counting them is faster than joining words.
    statement = f"""
        with answers as (select text_id, annotator, value from annotations where {where}),
        codes as materialized (
            select annotator, value, row_number() over (order by annotator, value)::integer as code
            from (select distinct annotator, value from answers)
        ),
        coded as materialized (select text_id, code from answers join codes using (annotator, value)),
        counted as (
            select a.code as code, b.code as other_code, count(*) as texts
            from coded as a join coded as b on a.text_id = b.text_id and a.code < b.code group by all
        ),
        cells as materialized (
            select one.annotator as one, other.annotator as other, one.value, other.value as other_value, texts
            from counted join codes as one using (code) join codes as other on other.code = other_code
            where one.annotator <> other.annotator
        ),
        pairs as materialized (
            select one, other, sum(texts) as shared, count(*) over () as pairs from cells group by one, other
            order by shared desc, one, other limit ?
        )
        select pairs, one, other, value, other_value, texts from pairs join cells using (one, other)
        order by shared desc, one, other, value, other_value
    """  # noqa: S608
    rows = cursor.execute(statement, [*values, pairs_max]).fetchall()
    found: dict[Pair, Cells] = {}
    for _, one, other, value, other_value, texts in rows:
        found.setdefault((one, other), {})[value, other_value] = texts
    return rows[0][0] if rows else 0, found


def list_work(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> list[AnnotatorWork]:
    """Return the work of each annotator, by number of answers."""
    where, values = annotator_conditions(query)
    # Spans of time first, which leaves little to sort. No span is longer than a step, so it contains no pause.
    statement = f"""
        with spans as (
            select annotator, epoch_us(min(created_at)) as starts, epoch_us(max(created_at)) as ends,
                   count(*) as given,
                   count(*) filter (status = '{AnnotationStatus.SUBMITTED}') as answers,
                   count(*) filter (status = '{AnnotationStatus.DISCARDED}') as discarded
            from annotations where {where} and status <> '{AnnotationStatus.DRAFT}'
            group by annotator, epoch_us(created_at) // {_PAUSE_MICROSECONDS}
        ),
        gaps as (
            select *, starts - lag(ends) over (partition by annotator order by starts) as gap from spans
        ),
        steps as (select *, coalesce(gap <= {_PAUSE_MICROSECONDS}, false) as goes_on from gaps)
        select annotator, sum(answers)::bigint, sum(discarded)::bigint,
               make_timestamp(min(starts)), make_timestamp(max(ends)),
               sum(given - 1 + goes_on::bigint)::bigint,
               sum(ends - starts + if(goes_on, gap, 0))::bigint
        from steps group by annotator order by 2 desc, annotator
    """  # noqa: S608
    return [AnnotatorWork(*row) for row in cursor.execute(statement, values).fetchall()]


def count_outcomes(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> list[AnswerCount]:
    """Return the answers of each annotator to labelled texts and gold texts."""
    where, values = conditions(query)
    said, said_values = said_by_annotators(query.dataset)
    statement = f"""
        select annotator, value, label, gold_label, is_shared, count(*)
        from annotations join (
            select id as text_id, label, gold_label, annotations > 1 as is_shared from items
            where {where} and (label is not null or gold_label is not null)
        ) using (text_id)
        where {said} and status = ? and value is not null group by all order by all
    """  # noqa: S608
    rows = cursor.execute(statement, [*values, *said_values, AnnotationStatus.SUBMITTED.value]).fetchall()
    return [AnswerCount(*row) for row in rows]


def _submitted(query: TextsQuery) -> tuple[str, list[object]]:
    where, values = annotator_conditions(query)
    return f"{where} and status = ? and value is not null", [*values, AnnotationStatus.SUBMITTED.value]


def count_complete(cursor: duckdb.DuckDBPyConnection, dataset: str) -> int:
    """Return the number of a dataset's complete items."""
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


VALUES_MAX = 50

# The expression over `items` that is counted for each filter; annotators are counted by the names in `annotators`.
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
    """Return the number of texts that a query selects."""
    if is_counted(query):
        return sum_texts(cursor, *kind_conditions(query))
    where, values = conditions(query)
    statement = f"select count(*) from items where {where}"  # noqa: S608 - known columns only
    number: int = cursor.execute(statement, values).fetchall()[0][0]
    return number


def count_values(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, facets: Sequence[str]
) -> dict[str, Counted]:
    """Return the most frequent values of each of these facets among the texts that a query selects."""
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
    """Return the first of `days` days up to the last one with a label, and the texts of each day by label."""
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
