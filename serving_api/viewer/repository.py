"""The queries of the viewer: live rows with their offsets, and pages of any rows."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import accumulate
from typing import Any
from uuid import UUID

import duckdb

from serving_api.columns import Kind, typed
from serving_api.search.candidates import IndexSnapshot
from serving_api.search.pages import list_ranked
from serving_api.texts.paging import Sample
from serving_api.texts.parameters import Order
from serving_api.texts.query import TextsQuery
from serving_api.texts.repository import Condition, all_of, ordering
from serving_api.viewer.conditions import (
    LIVE_NAMES,
    Filter,
    Key,
    NumberedRow,
    Slice,
    Span,
    condition_of,
    keys_of,
)
from serving_api.viewer.features import LIVE, SplitColumn
from serving_api.viewer.statistics import make_statistics

ORDER = ordering(Order.OLDEST)
# Rows that are sorted at a time to find a few.
SORTED_ROWS = 4096
MARGIN = 1024
# Then halves: rows of another dataset, or bursts, lead guesses astray.
_GUESSES = 4
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DayOffsets:
    """How many rows a dataset has by the day of their labels."""

    dataset: str
    days: Sequence[date]
    ends: Sequence[int]  # how many rows there are up to the end of each day

    @property
    def total(self) -> int:
        """Rows of the dataset."""
        return self.ends[-1] if self.ends else 0

    def begin(self, index: int) -> int:
        """Return how many rows come before a day."""
        return self.ends[index - 1] if index else 0


@dataclass(frozen=True, slots=True)
class Window:
    """The rows of a span of time."""

    low: datetime
    high: datetime  # not included
    before: int  # rows of the dataset before `low`
    end: int  # rows of the dataset before `high`


def get_days(cursor: duckdb.DuckDBPyConnection, dataset: str) -> DayOffsets:
    """Return how many rows the dataset has by day."""
    statement = "select day, texts from totals_by_day where dataset = ? order by day"
    counted = cursor.execute(statement, [dataset]).fetchall()
    return DayOffsets(dataset, [day for day, _ in counted], [*accumulate(texts for _, texts in counted)])


def find_window(cursor: duckdb.DuckDBPyConnection, days: DayOffsets, sample: Sample, place: int) -> Window:
    """Return a window that holds the row at `place`, which must be less than the total; mostly a small one."""
    index = bisect_right(days.ends, place)
    low = datetime.combine(days.days[index], time())
    window = Window(low, low + _DAY, days.begin(index), days.ends[index])
    guesses = 0
    while window.end - window.before > SORTED_ROWS:
        moments = _between(sample, window)
        if not moments:  # all of one moment, or all new
            break
        edges = _edges(moments, window, place) if guesses < _GUESSES else [moments[len(moments) // 2]]
        window = _narrow(cursor, days.dataset, window, edges, place)
        guesses += 1
    return window


def _between(sample: Sample, window: Window) -> list[datetime]:
    """Return the sample's moments within a window, neither of its ends among them."""
    first = bisect_right(sample.moments, window.low)
    return sample.moments[first : bisect_left(sample.moments, window.high)]


def _edges(moments: list[datetime], window: Window, place: int) -> list[datetime]:
    """Return moments that are about a margin before and behind the place."""
    each = len(moments) / (window.end - window.before)
    around = (place - window.before - MARGIN, place - window.before + MARGIN)
    return sorted({moments[min(max(int(rows * each), 0), len(moments) - 1)] for rows in around})


def _narrow(
    cursor: duckdb.DuckDBPyConnection, dataset: str, window: Window, edges: list[datetime], place: int
) -> Window:
    """Return the part of the window, as the edges divide it, that holds the place."""
    counts = ", ".join("count(*) filter (labelled_at < ?)" for _ in edges)
    statement = f"select {counts} from items where dataset = ? and labelled_at >= ? and labelled_at < ?"  # noqa: S608
    found = cursor.execute(statement, [*edges, dataset, window.low, edges[-1]]).fetchall()[0]
    part = window
    for edge, rows in zip(edges, found, strict=True):
        if window.before + rows > place:
            return replace(part, high=edge, end=window.before + rows)
        part = replace(part, low=edge, before=window.before + rows)
    return part


def windows_of(
    cursor: duckdb.DuckDBPyConnection, days: DayOffsets, sample: Sample, first: int, end: int
) -> Window:
    """Return the window of the rows from `first` to `end`, not included; there must be such rows."""
    low = find_window(cursor, days, sample, first)
    if end <= low.end:
        return low
    high = find_window(cursor, days, sample, end - 1)
    return Window(low.low, high.high, low.before, high.end)


def within_window(dataset: str, window: Window) -> Condition:
    """Return the WHERE clause of a window's rows, and its values."""
    return "dataset = ? and labelled_at >= ? and labelled_at < ?", [dataset, window.low, window.high]


def get_places(
    cursor: duckdb.DuckDBPyConnection, days: DayOffsets, rows: Sequence[tuple[UUID, datetime]]
) -> list[int]:
    """Return the place of each row, given by its id and the time of its label."""
    if not rows:
        return []
    by_day: dict[date, list[datetime]] = {}
    for _, moment in rows:
        by_day.setdefault(moment.date(), []).append(moment)
    before = _count_before(cursor, days.dataset, {day: min(moments) for day, moments in by_day.items()})
    between = " or ".join(["labelled_at between ? and ?"] * len(by_day))
    bounds = [bound for moments in by_day.values() for bound in (min(moments), max(moments))]
    statement = f"""
        select id, place from (
            select id, row_number() over (partition by labelled_at::date order by {ORDER}) - 1 as place
            from items where dataset = ? and ({between})
        ) where list_contains(?, id)
    """  # noqa: S608 - known columns only
    found = dict(cursor.execute(statement, [days.dataset, *bounds, [id_ for id_, _ in rows]]).fetchall())
    begins = {day: days.begin(index) + before.get(day, 0) for index, day in enumerate(days.days)}
    return [begins[moment.date()] + found[id_] for id_, moment in rows]


def _count_before(
    cursor: duckdb.DuckDBPyConnection, dataset: str, moments: Mapping[date, datetime]
) -> dict[date, int]:
    """Return how many rows of each day come before a moment of it; days without such rows are left out."""
    spans = " or ".join(["(labelled_at >= ? and labelled_at < ?)"] * len(moments))
    bounds = [bound for day, moment in moments.items() for bound in (datetime.combine(day, time()), moment)]
    statement = f"""
        select labelled_at::date, count(*) from items where dataset = ? and ({spans}) group by 1
    """  # noqa: S608
    return dict(cursor.execute(statement, [dataset, *bounds]).fetchall())


Connection = duckdb.DuckDBPyConnection


def read_rows(cursor: Connection, dataset: str, span: Span, sample: Sample) -> Slice:
    """Return rows in the order of their labels, the oldest first."""
    days = get_days(cursor, dataset)
    end = min(span.offset + span.length, days.total)
    if span.offset >= end:
        return Slice([], days.total)
    window = windows_of(cursor, days, sample, span.offset, end)
    where, values = within_window(dataset, window)
    statement = f"select {typed()} from items where {where} order by {ORDER} limit ? offset ?"  # noqa: S608
    paging = [end - span.offset, span.offset - window.before]
    rows = cursor.execute(statement, [*values, *paging]).fetchall()
    return Slice([NumberedRow(span.offset + index, row) for index, row in enumerate(rows)], days.total)


def list_page(
    cursor: duckdb.DuckDBPyConnection,
    columns: str,
    source: str,
    where: Condition,
    keys: Sequence[Key],
    order: str,
    span: Span,
) -> tuple[int, list[tuple[Any, ...]]]:
    """Return how many rows of the source fit, and the columns of some, sorted by the keys, then as `order` says.

    The rows are read once. The first of the columns is never null, and all that `order` names are among them.
    """
    # Named by number: a column of the replica is not always what the list shows under its name.
    named = "".join(f", {key.expression[0]} as key_{number}" for number, key in enumerate(keys))
    sorting = ", ".join([*(f"key_{number} {key.how}" for number, key in enumerate(keys)), order])
    statement = f"""
        with fitting as materialized (select {columns}{named} from {source} where {where[0]})
        select (select count(*) from fitting), {columns}
        from (select 1) left join (select * from fitting order by {sorting} limit ? offset ?) on true
        order by {sorting}
    """  # noqa: S608 - known columns only
    values = [value for key in keys for value in key.expression[1]]
    found = cursor.execute(statement, [*values, *where[1], span.length, span.offset]).fetchall()
    return found[0][0], [row[1:] for row in found if row[1] is not None]


def filter_rows(cursor: Connection, dataset: str, asked: Filter, span: Span) -> Slice:
    """Return rows that fit, in the order asked for, then in the order of their labels."""
    where = all_of([("dataset = ?", [dataset]), condition_of(asked.where, LIVE_NAMES)])
    keys = keys_of(asked.orderby, LIVE_NAMES)
    total, found = list_page(cursor, "id, labelled_at", "items", where, keys, ORDER, span)
    return Slice(_numbered(cursor, dataset, found), total)


def search_rows(
    cursor: Connection, query: TextsQuery, span: Span, snapshot: IndexSnapshot | None, until: float
) -> Slice:
    """Return rows that match, the best first; where there are more than can be ranked, the best of them."""
    ranked, whole = list_ranked(cursor, query, snapshot, until)
    wanted = [id_ for _, id_ in ranked[span.offset : span.offset + span.length]]
    where = f"id in ({', '.join('?' * len(wanted))})" if wanted else "false"
    statement = f"select id, labelled_at from items where {where}"  # noqa: S608
    moments = dict(cursor.execute(statement, wanted).fetchall())
    return Slice(_numbered(cursor, query.dataset, [(id_, moments[id_]) for id_ in wanted]), len(ranked), whole)


def newest_day(cursor: Connection, dataset: str) -> date | None:
    """Return the day of the newest label; None without labels."""
    days = get_days(cursor, dataset).days
    return max(days, default=None)


def facts(cursor: Connection, dataset: str) -> dict[str, int]:
    """Return how many rows there are, and how many bytes they have as Arrow holds them; there is no file."""
    widths = [_bytes_of(column) for column in LIVE]
    statement = f"select count(*), {' + '.join(widths)} from items where dataset = ?"  # noqa: S608
    rows, size = cursor.execute(statement, [dataset]).fetchall()[0]
    return {"rows": rows, "memory_bytes": size, "file_bytes": 0}


def statistics(cursor: Connection, dataset: str) -> dict[str, Any]:
    """Return the statistics of all columns."""
    meant: Condition = ("dataset = ?", [dataset])
    return make_statistics(cursor, LIVE, LIVE_NAMES, lambda _: nullcontext(("items", meant)))


def _bytes_of(column: SplitColumn) -> str:
    if column.is_text:
        # Where each string begins takes four bytes, and the end of the last one does.
        name = LIVE_NAMES.get(column.name, column.quoted)
        return f"coalesce(sum(strlen({name})), 0)::bigint + 4 * (count(*) + 1)"
    if column.kind is Kind.FLAG:
        return "(count(*) + 7) // 8"
    return f"{4 if column.dtype == 'int32' else 8} * count(*)"


def _numbered(cursor: Connection, dataset: str, found: Sequence[tuple[UUID, Any]]) -> list[NumberedRow]:
    """Return these rows with their places, in the order given."""
    if not found:
        return []
    numbers = get_places(cursor, get_days(cursor, dataset), found)
    ids = [id_ for id_, _ in found]
    statement = f"select {typed()} from items where id in ({', '.join('?' * len(ids))})"  # noqa: S608
    rows = {UUID(row[0]): row for row in cursor.execute(statement, ids).fetchall()}
    return [NumberedRow(number, rows[id_]) for number, id_ in zip(numbers, ids, strict=True)]
