"""Queries for the statistics of annotators."""

from datetime import datetime
from typing import NamedTuple

import duckdb
import orjson

from core.models import AnnotationStatus
from serving_api.statistics.agreement import Cells, Votes
from serving_api.texts.query import TextsQuery, annotator_conditions, conditions, said_by_annotators

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
    """Return the number of texts that both of a pair have answered, by what they said."""
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
    """Return how many pairs share texts, and the same as `count_pair` of those that share the most."""
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
    """Return what each annotator has done, who answered the most first."""
    where, values = annotator_conditions(query)
    # By spans of time first, which leaves little to sort. None is longer than a step, so none has a pause within.
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
    """Return what each annotator said about labelled texts and gold texts."""
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
