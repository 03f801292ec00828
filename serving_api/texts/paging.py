"""Reads pages from narrow ranges of time: a page then costs the same in a small and in a large replica.

DuckDB skips row groups with other times, but sorts all rows that a query selects. So the query selects few: a
range that probably has the page's rows, and if they were not enough, the next range, four times as wide.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import duckdb

from serving_api.replica.repository import Point
from serving_api.texts import repository
from serving_api.texts.parameters import Order
from serving_api.texts.query import PageQuery, TextsQuery, timestamp
from serving_api.texts.repository import Row, kind_conditions, time_window

# About how many timestamps a sample has.
SAMPLE_SIZE = 4096
_WIDER = 4
# The first range is this much wider than a page seems to need.
_SLACK = 1.5
# Up to this many rows, DuckDB is faster when it compares their times first and their other columns afterwards.
_NARROW_ROWS = 5_000
# Reading a row by its index costs as much as scanning about 500.
SPARSE_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Sample:
    """Timestamps of labels, sorted, evenly taken from all. It may be old: it only helps to estimate a range."""

    moments: list[datetime]
    rows_each: int  # the rows that one moment stands for

    @property
    def rows(self) -> int:
        """The approximate number of rows."""
        return len(self.moments) * self.rows_each


def take_sample(cursor: duckdb.DuckDBPyConnection, rows: int) -> Sample:
    """Take a sample of the replica's `rows` rows."""
    rows_each = max(1, rows // SAMPLE_SIZE)
    return Sample(repository.list_timestamps(cursor, rows_each), rows_each)


def is_sparse(page: PageQuery, sample: Sample, texts: int) -> bool:
    """Whether the page's texts are so rare that the search index finds them faster; `texts` as in `list_page`."""
    return page.limit * sample.rows > SPARSE_ROWS * max(texts, 1)


def list_page(cursor: duckdb.DuckDBPyConnection, page: PageQuery, sample: Sample, texts: int) -> list[Row]:
    """Return the page's items, and one more if there are more.

    `texts` is an estimate of the number of texts on all pages.
    """
    wanted = page.limit + 1
    newest_first = page.texts.order is Order.NEWEST
    edge, last = _ends(page)
    reach = wanted * _SLACK * max(1.0, sample.rows / max(texts, 1))
    rows: list[Row] = []
    while len(rows) < wanted:
        following = _move(sample, edge, reach, newest_first)
        if following and last and (following <= last if newest_first else following >= last):
            following = None
        window, is_narrow = (
            time_window(edge, following, newest_first),
            following is not None and reach <= _NARROW_ROWS,
        )
        rows += repository.list_items(cursor, page, window, wanted - len(rows), is_narrow=is_narrow)
        if following is None:
            break
        edge, reach = following, reach * _WIDER
    return rows


def _ends(page: PageQuery) -> tuple[datetime | None, datetime | None]:
    """Return the bounds of the page's timestamps; None: no bound."""
    filters = page.texts.filters
    first, last = filters.labelled_before, filters.labelled_after
    if page.texts.order is Order.OLDEST:
        first, last = last, first
    return timestamp(page.after.rank) if page.after else first, last


def _move(sample: Sample, edge: datetime | None, reach: float, newest_first: bool) -> datetime | None:
    """Return the timestamp about `reach` rows beyond `edge`; None if there are fewer rows."""
    moments, steps = sample.moments, reach / sample.rows_each
    if newest_first:
        target = (len(moments) - 1 if edge is None else _index(moments, edge)) - steps
    else:
        target = (0 if edge is None else _index(moments, edge)) + steps
    if not 0 <= target < len(moments) - 1:
        return None
    before = moments[int(target)]
    return before + (moments[int(target) + 1] - before) * (target % 1)


def _index(moments: list[datetime], timestamp: datetime) -> float:
    """Return the index of a timestamp in the sample; between two of its timestamps, a fraction."""
    index = bisect_right(moments, timestamp) - 1
    if not 0 <= index < len(moments) - 1:
        return index
    before, after = moments[index], moments[index + 1]
    return index + (timestamp - before) / (after - before)


# An old sample makes pages slower, not wrong.
_SAMPLE_SECONDS = 60
_KINDS_MAX = 10_000


class Hints:
    """Caches totals of the newest version and a sample of timestamps; shared by the threads that query.

    Without it each page would read both (`make bench ONLY=serving`, "label, fresh").
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: tuple[Point | None, dict[str, int]] = (None, {})
        self._sample: Sample | None = None
        self._sampled_of: Point | None = None
        self._sampled_at = 0.0

    def count_texts(self, cursor: duckdb.DuckDBPyConnection, point: Point, query: TextsQuery) -> int:
        """Return the number of texts with the query's label, status, source and language, from the totals."""
        where, values = kind_conditions(query)
        return self._total(point, f"{where} {values!r}", lambda: repository.sum_texts(cursor, where, values))

    def count_likely(self, cursor: duckdb.DuckDBPyConnection, point: Point, query: TextsQuery) -> int:
        """Return an estimate of the number of texts that a query finds, from the totals. It is rarely too low."""
        texts, name = self.count_texts(cursor, point, query), query.filters.annotator
        if name is None:
            return texts
        kind = f"{query.dataset} annotated by {name}"
        return min(texts, self._total(point, kind, lambda: repository.count_answers(cursor, query.dataset, name)))

    def _total(self, point: Point, kind: str, count: Callable[[], int]) -> int:
        of, totals = self._totals
        if of != point or len(totals) > _KINDS_MAX:
            totals = {}
            self._totals = point, totals
        if kind not in totals:
            totals[kind] = count()
        return totals[kind]

    def sample(self, cursor: duckdb.DuckDBPyConnection, point: Point) -> Sample:
        """Return a sample of the labels' timestamps, not much older than `point`."""
        with self._lock:
            is_old = self._sampled_of != point and time.monotonic() - self._sampled_at > _SAMPLE_SECONDS
            if self._sample is None or is_old:
                self._sample = take_sample(cursor, repository.sum_texts(cursor, "true", []))
                self._sampled_of, self._sampled_at = point, time.monotonic()
            return self._sample
