"""The queries of the viewer: rows of live labels and of snapshots' files, with their offsets."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import accumulate
from typing import Any, ClassVar
from uuid import UUID

import duckdb

from serving_api.columns import Kind, typed
from serving_api.replica.file import quoted_text
from serving_api.texts.parameters import Order
from serving_api.texts.query import TextsQuery
from serving_api.texts.repository import Condition, ordering
from serving_api.texts.service import Sample
from serving_api.viewer.split_rows import LIVE, Filter, NumberedRow, Slice, SortKey, Span, SplitColumn

Connection = duckdb.DuckDBPyConnection
# Relevance and id of the best matches, and whether these are all: as of `search.repository.list_ranked`.
Ranked = tuple[list[tuple[int, UUID]], bool]

ORDER = ordering(Order.OLDEST)
# The most rows to sort to find a page.
SORTED_ROWS = 4096
MARGIN = 1024
# After these guesses the window is halved: bursts, or rows of another dataset, may make guesses wrong.
_GUESSES = 4
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DayOffsets:
    """The numbers of a dataset's rows by the day of their labels."""

    dataset: str
    days: Sequence[date]
    ends: Sequence[int]  # rows up to the end of each day

    @property
    def total(self) -> int:
        """Rows of the dataset."""
        return self.ends[-1] if self.ends else 0

    def begin(self, index: int) -> int:
        """Return the number of rows before a day."""
        return self.ends[index - 1] if index else 0


@dataclass(frozen=True, slots=True)
class Window:
    """The rows of a span of time."""

    low: datetime
    high: datetime  # not included
    before: int  # rows of the dataset before `low`
    end: int  # rows of the dataset before `high`


def get_days(cursor: Connection, dataset: str) -> DayOffsets:
    """Return the numbers of the dataset's rows by day."""
    statement = "select day, texts from totals_by_day where dataset = ? order by day"
    counted = cursor.execute(statement, [dataset]).fetchall()
    return DayOffsets(dataset, [day for day, _ in counted], [*accumulate(texts for _, texts in counted)])


def find_window(cursor: Connection, days: DayOffsets, sample: Sample, offset: int) -> Window:
    """Return a window that contains the row at the offset `offset`, which must exist; usually it is small."""
    index = bisect_right(days.ends, offset)
    low = datetime.combine(days.days[index], time())
    window = Window(low, low + _DAY, days.begin(index), days.ends[index])
    guesses = 0
    while window.end - window.before > SORTED_ROWS:
        timestamps = _between(sample, window)
        if not timestamps:  # all rows have one timestamp, or all are new
            break
        edges = _edges(timestamps, window, offset) if guesses < _GUESSES else [timestamps[len(timestamps) // 2]]
        window = _narrow(cursor, days.dataset, window, edges, offset)
        guesses += 1
    return window


def _between(sample: Sample, window: Window) -> list[datetime]:
    """Return the sample's timestamps within a window, without its ends."""
    first = bisect_right(sample.moments, window.low)
    return sample.moments[first : bisect_left(sample.moments, window.high)]


def _edges(timestamps: list[datetime], window: Window, offset: int) -> list[datetime]:
    """Return timestamps about a margin before and after the offset."""
    each = len(timestamps) / (window.end - window.before)
    around = (offset - window.before - MARGIN, offset - window.before + MARGIN)
    return sorted({timestamps[min(max(int(rows * each), 0), len(timestamps) - 1)] for rows in around})


def _narrow(cursor: Connection, dataset: str, window: Window, edges: list[datetime], offset: int) -> Window:
    """Return the part of the window between two edges that contains the offset."""
    counts = ", ".join("count(*) filter (labelled_at < ?)" for _ in edges)
    statement = f"select {counts} from items where dataset = ? and labelled_at >= ? and labelled_at < ?"  # noqa: S608
    found = cursor.execute(statement, [*edges, dataset, window.low, edges[-1]]).fetchall()[0]
    part = window
    for edge, rows in zip(edges, found, strict=True):
        if window.before + rows > offset:
            return replace(part, high=edge, end=window.before + rows)
        part = replace(part, low=edge, before=window.before + rows)
    return part


def windows_of(cursor: Connection, days: DayOffsets, sample: Sample, first: int, end: int) -> Window:
    """Return the window of the rows from `first` up to, but not including, `end`; these rows must exist."""
    low = find_window(cursor, days, sample, first)
    if end <= low.end:
        return low
    high = find_window(cursor, days, sample, end - 1)
    return Window(low.low, high.high, low.before, high.end)


def get_offsets(cursor: Connection, days: DayOffsets, rows: Sequence[tuple[UUID, datetime]]) -> list[int]:
    """Return the offset of each row, given by its id and the time of its label."""
    if not rows:
        return []
    by_day: dict[date, list[datetime]] = {}
    for _, timestamp in rows:
        by_day.setdefault(timestamp.date(), []).append(timestamp)
    before = _count_before(cursor, days.dataset, {day: min(timestamps) for day, timestamps in by_day.items()})
    between = " or ".join(["labelled_at between ? and ?"] * len(by_day))
    bounds = [bound for timestamps in by_day.values() for bound in (min(timestamps), max(timestamps))]
    statement = f"""
        select id, row_offset from (
            select id, row_number() over (partition by labelled_at::date order by {ORDER}) - 1 as row_offset
            from items where dataset = ? and ({between})
        ) where list_contains(?, id)
    """  # noqa: S608 - known columns only
    found = dict(cursor.execute(statement, [days.dataset, *bounds, [id_ for id_, _ in rows]]).fetchall())
    begins = {day: days.begin(index) + before.get(day, 0) for index, day in enumerate(days.days)}
    return [begins[timestamp.date()] + found[id_] for id_, timestamp in rows]


def _count_before(cursor: Connection, dataset: str, timestamps: Mapping[date, datetime]) -> dict[date, int]:
    """Return the number of rows of each day before a timestamp; days without such rows are omitted."""
    spans = " or ".join(["(labelled_at >= ? and labelled_at < ?)"] * len(timestamps))
    bounds = [
        bound for day, timestamp in timestamps.items() for bound in (datetime.combine(day, time()), timestamp)
    ]
    statement = f"""
        select labelled_at::date, count(*) from items where dataset = ? and ({spans}) group by 1
    """  # noqa: S608
    return dict(cursor.execute(statement, [dataset, *bounds]).fetchall())


@dataclass(frozen=True)
class LiveSplit:
    """The live labels of a dataset, in the order of their labels, the oldest first."""

    cursor: Connection
    dataset: str
    sample: Callable[[], Sample]
    rank: Callable[[TextsQuery], Ranked]
    columns: ClassVar = LIVE

    def rows(self, span: Span) -> Slice:
        """Return the rows of a span."""
        days = get_days(self.cursor, self.dataset)
        end = min(span.offset + span.length, days.total)
        if span.offset >= end:
            return Slice([], days.total)
        window = windows_of(self.cursor, days, self.sample(), span.offset, end)
        where = "dataset = ? and labelled_at >= ? and labelled_at < ?"
        statement = f"select {typed()} from items where {where} order by {ORDER} limit ? offset ?"  # noqa: S608
        values = [self.dataset, window.low, window.high, end - span.offset, span.offset - window.before]
        rows = self.cursor.execute(statement, values).fetchall()
        return Slice([NumberedRow(span.offset + index, row) for index, row in enumerate(rows)], days.total)

    def filter(self, rows_filter: Filter, span: Span) -> Slice:
        """Return the rows that fit, in the requested order, then in the order of their labels."""
        condition, values = rows_filter.where
        where = f"dataset = ? and ({condition})", [self.dataset, *values]
        columns = "id, labelled_at"
        total, found = list_page(self.cursor, columns, "items", where, rows_filter.orderby, ORDER, span)
        return Slice(self._numbered(found), total)

    def search(self, query: TextsQuery, span: Span) -> Slice:
        """Return rows that match, the best first; if too many match to rank all, the best of them."""
        ranked, whole = self.rank(query)
        wanted = [id_ for _, id_ in ranked[span.offset : span.offset + span.length]]
        statement = f"select id, labelled_at from items where {_among(wanted)}"  # noqa: S608
        timestamps = dict(self.cursor.execute(statement, wanted).fetchall())
        return Slice(self._numbered([(id_, timestamps[id_]) for id_ in wanted]), len(ranked), whole)

    def aggregate(self, wanted: Sequence[Condition]) -> tuple[Any, ...]:
        """Return the values of SQL aggregates over all rows."""
        return aggregate(self.cursor, "items", ("dataset = ?", [self.dataset]), wanted)

    def newest_day(self) -> date | None:
        """Return the day of the newest label; None without labels."""
        return max(get_days(self.cursor, self.dataset).days, default=None)

    def count(self) -> tuple[int, int]:
        """Return the number of rows, and their bytes in Arrow."""
        widths = " + ".join(map(_bytes_of, LIVE))
        rows, size = self.aggregate([("count(*)", []), (widths, [])])
        return rows, size

    def _numbered(self, found: Sequence[tuple[UUID, Any]]) -> list[NumberedRow]:
        """Return these rows with their offsets, in the given order."""
        if not found:
            return []
        numbers = get_offsets(self.cursor, get_days(self.cursor, self.dataset), found)
        ids = [id_ for id_, _ in found]
        statement = f"select {typed()} from items where {_among(ids)}"  # noqa: S608
        rows = {UUID(row[0]): row for row in self.cursor.execute(statement, ids).fetchall()}
        return [NumberedRow(number, rows[id_]) for number, id_ in zip(numbers, ids, strict=True)]


def _among(ids: Sequence[UUID]) -> str:
    return f"id in ({', '.join('?' * len(ids))})" if ids else "false"


def _bytes_of(column: SplitColumn) -> str:
    if column.is_text:
        # The offset of each string takes four bytes, and so does the end of the last one.
        return f"coalesce(sum(strlen({column.sql})), 0)::bigint + 4 * (count(*) + 1)"
    if column.kind is Kind.FLAG:
        return "(count(*) + 7) // 8"
    return f"{4 if column.dtype == 'int32' else 8} * count(*)"


# DuckDB's name of a row's offset in a Parquet file.
_OFFSET = "file_row_number"


@dataclass(frozen=True)
class StoredSplit:
    """A split of a snapshot, in the order of its Parquet file, which DuckDB reads."""

    cursor: Connection
    address: str  # of the file
    total: int  # rows
    columns: tuple[SplitColumn, ...]

    @property
    def _source(self) -> str:
        return f"read_parquet({quoted_text(self.address)}, {_OFFSET} = true)"

    def rows(self, span: Span) -> Slice:
        """Return the rows of a span."""
        offsets = range(span.offset, min(span.offset + span.length, self.total))
        return Slice(self.read_offsets(offsets), self.total)

    def filter(self, rows_filter: Filter, span: Span) -> Slice:
        """Return the rows that fit, in the requested order, then in the split's own."""
        return self._list(rows_filter.where, rows_filter.orderby, span)

    def search(self, query: TextsQuery, span: Span) -> Slice:
        """Return all rows that match, the best first, then in the split's own order."""
        search = query.search
        return self._list(search.condition(), [SortKey(search.relevance(), "desc")], span)

    def aggregate(self, wanted: Sequence[Condition]) -> tuple[Any, ...]:
        """Return the values of SQL aggregates over all rows."""
        return aggregate(self.cursor, self._source, ("true", []), wanted)

    def read_offsets(self, offsets: Sequence[int]) -> list[NumberedRow]:
        """Return the rows at these offsets, in the given order. Reads only the row groups that contain them."""
        if not offsets:
            return []
        values = ", ".join(column.sql for column in self.columns)
        statement = f"""
            select {_OFFSET}, {values} from {self._source}
            where {_OFFSET} between ? and ? and {_OFFSET} in ({", ".join("?" * len(offsets))})
        """  # noqa: S608 - known columns only
        found = self.cursor.execute(statement, [min(offsets), max(offsets), *offsets]).fetchall()
        rows = {offset: NumberedRow(offset, tuple(row)) for offset, *row in found}
        return [rows[offset] for offset in offsets]

    def _list(self, where: Condition, keys: Sequence[SortKey], span: Span) -> Slice:
        total, found = list_page(self.cursor, _OFFSET, self._source, where, keys, _OFFSET, span)
        return Slice(self.read_offsets([offset for (offset,) in found]), total)


def list_page(
    cursor: Connection,
    columns: str,
    source: str,
    where: Condition,
    keys: Sequence[SortKey],
    order: str,
    span: Span,
) -> tuple[int, list[tuple[Any, ...]]]:
    """Return the number of rows of the source that fit, and a span of them, sorted by the keys, then by `order`.

    The rows are read once. The first column must not be null, and the columns must contain those of `order`.
    """
    # Keys have numbers as names: a column of the list may have the name of another one in the replica.
    named = "".join(f", {key.expression[0]} as key_{number}" for number, key in enumerate(keys))
    sorting = ", ".join([*(f"key_{number} {key.direction}" for number, key in enumerate(keys)), order])
    statement = f"""
        with fitting as materialized (select {columns}{named} from {source} where {where[0]})
        select (select count(*) from fitting), {columns}
        from (select 1) left join (select * from fitting order by {sorting} limit ? offset ?) on true
        order by {sorting}
    """  # noqa: S608 - known columns only
    values = [value for key in keys for value in key.expression[1]]
    found = cursor.execute(statement, [*values, *where[1], span.length, span.offset]).fetchall()
    return found[0][0], [row[1:] for row in found if row[1] is not None]


def aggregate(cursor: Connection, source: str, where: Condition, wanted: Sequence[Condition]) -> tuple[Any, ...]:
    """Return the values of SQL aggregates over the rows of a source that fit."""
    select = ", ".join(sql for sql, _ in wanted)
    values = [value for _, some in wanted for value in some]
    statement = f"select {select} from {source} where {where[0]}"  # noqa: S608 - known columns only
    return cursor.execute(statement, [*values, *where[1]]).fetchall()[0]
