"""Where a row is among the live rows of a dataset, and which rows are at a place: without counting all of them.

The rows are in the order of their labels, the oldest first, so that new ones come last. The replica keeps how many
there are by day. Within a day a sample of times tells about where to look, and counting tells exactly.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import accumulate
from uuid import UUID

import duckdb

from serving_api.texts.paging import Sample
from serving_api.texts.parameters import Order
from serving_api.texts.query import Condition, ordering

ORDER = ordering(Order.OLDEST)
# So many rows are sorted to find a few.
SORTED_ROWS = 4096
MARGIN = 1024
# Then halves: rows of another dataset, or bursts, lead guesses astray.
_GUESSES = 4
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Days:
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


def get_days(cursor: duckdb.DuckDBPyConnection, dataset: str) -> Days:
    """Return how many rows the dataset has by day."""
    statement = "select day, texts from totals_by_day where dataset = ? order by day"
    counted = cursor.execute(statement, [dataset]).fetchall()
    return Days(dataset, [day for day, _ in counted], [*accumulate(texts for _, texts in counted)])


def find_window(cursor: duckdb.DuckDBPyConnection, days: Days, sample: Sample, place: int) -> Window:
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


def windows_of(cursor: duckdb.DuckDBPyConnection, days: Days, sample: Sample, first: int, end: int) -> Window:
    """Return the window of the rows from `first` to `end`, not included; there must be such rows."""
    low = find_window(cursor, days, sample, first)
    if end <= low.end:
        return low
    high = find_window(cursor, days, sample, end - 1)
    return Window(low.low, high.high, low.before, high.end)


def condition_of(dataset: str, window: Window) -> Condition:
    """Return the WHERE clause of a window's rows, and its values."""
    return "dataset = ? and labelled_at >= ? and labelled_at < ?", [dataset, window.low, window.high]


def get_places(cursor: duckdb.DuckDBPyConnection, days: Days, rows: Sequence[tuple[UUID, datetime]]) -> list[int]:
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
