"""Responses about texts: pages, searches, disputes and single texts.

Pages are read from narrow ranges of time: a page then costs the same in a small and in a large replica. DuckDB
skips row groups with other times, but sorts all rows that a query selects. So the query selects few: a range that
probably has the page's rows, and if they were not enough, the next range, four times as wide.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Any, Protocol
from uuid import UUID

import msgspec
import orjson

from core.web.keys import is_dataset_allowed
from core.web.problems import NotFound
from serving_api.replica.query_pool import Answer, Answers, Connection, Made, QueryPool, check_time
from serving_api.replica.repository import Point
from serving_api.texts import repository
from serving_api.texts.parameters import Order, to_text
from serving_api.texts.query import PageQuery, Position, RankedQuery, TextsQuery, encode_cursor, timestamp
from serving_api.texts.repository import Row, is_counted, kind_conditions, time_window

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


def take_sample(cursor: Connection, rows: int) -> Sample:
    """Take a sample of the replica's `rows` rows."""
    rows_each = max(1, rows // SAMPLE_SIZE)
    return Sample(repository.list_timestamps(cursor, rows_each), rows_each)


def is_sparse(page: PageQuery, sample: Sample, texts: int) -> bool:
    """Whether the page's texts are so rare that the search index finds them faster; `texts` as in `list_page`."""
    return page.limit * sample.rows > SPARSE_ROWS * max(texts, 1)


def list_page(cursor: Connection, page: PageQuery, sample: Sample, texts: int) -> list[Row]:
    """Return the page's items, and one more if there are more.

    `texts` is an estimate of the number of texts on all pages.
    """
    wanted = page.limit + 1
    newest_first = page.texts.order is Order.NEWEST
    edge, last = _ends(page)
    # Not twice: comparing with the edge again takes a tenth of the query's time.
    begin = None if page.after else edge
    reach = wanted * _SLACK * max(1.0, sample.rows / max(texts, 1))
    rows: list[Row] = []
    while len(rows) < wanted:
        following = _move(sample, edge, reach, newest_first)
        if following and last and (following <= last if newest_first else following >= last):
            following = None
        window = time_window(begin, following, newest_first)
        is_narrow = following is not None and reach <= _NARROW_ROWS
        rows += repository.list_items(cursor, page, window, wanted - len(rows), is_narrow=is_narrow)
        if following is None:
            break
        begin, edge, reach = following, following, reach * _WIDER
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

    def count_likely(self, cursor: Connection, point: Point, query: TextsQuery) -> int:
        """Return an estimate of the number of texts that a query finds, from the totals. It is rarely too low."""
        where, values = kind_conditions(query)
        texts = self._total(point, f"{where} {values!r}", lambda: repository.sum_texts(cursor, where, values))
        name = query.filters.annotator
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

    def sample(self, cursor: Connection, point: Point) -> Sample:
        """Return a sample of the labels' timestamps, not much older than `point`."""
        with self._lock:
            is_old = self._sampled_of != point and time.monotonic() - self._sampled_at > _SAMPLE_SECONDS
            if self._sample is None or is_old:
                self._sample = take_sample(cursor, repository.sum_texts(cursor, "true", []))
                self._sampled_of, self._sampled_at = point, time.monotonic()
            return self._sample


class Finder(Protocol):
    """Finds items with the search index: `serving_api.search.follower.SearchFollower`.

    Both functions return at most `count` items after the page's position, each with its `rank`. They raise
    Unavailable after `until`, by the monotonic clock.
    """

    def list_hits(
        self, cursor: Connection, point: Point, page: PageQuery, count: int, until: float, /
    ) -> list[Row]:
        """Return the items that a search finds; without an index it reads all texts."""

    def list_in_order(
        self, cursor: Connection, point: Point, page: PageQuery, count: int, until: float, /
    ) -> list[Row] | None:
        """Return the items that the filters leave, by time; None if there is no index."""


class Texts:
    """Makes the responses about texts."""

    def __init__(self, answers: Answers, pool: QueryPool, hints: Hints, search: Finder) -> None:
        self._answers = answers
        self._pool = pool
        self._hints = hints
        self._search = search

    async def page(self, page: PageQuery) -> Answer:
        """Return one page of labelled texts."""
        kind, make = (b"page", self._page) if page.texts.filters.q is None else (b"search", self._hits)
        until = self._pool.until()
        return await self._answers.get(_key(kind, page), lambda cursor, point: make(cursor, point, page, until))

    async def ranked(self, query: RankedQuery, render: Callable[[Row], str] = itemgetter("document")) -> Answer:
        """Return one page of the texts that need attention; `render` returns the JSON of one of them."""

        def make(cursor: Connection, point: Point) -> Made:
            rows = repository.list_by_rank(cursor, query, query.limit + 1)
            return _make_page(query, rows, map(render, rows), version=point.version)

        return await self._answers.get(_key(b"ranked", query), make)

    async def text(self, id_: UUID) -> Answer:
        """Return one labelled text with its annotations.

        Raises:
            NotFound: there is no such text, it has no label yet, or the request's key may not use its dataset.
        """
        answer = await self._answers.get(b"text" + id_.bytes, lambda cursor, _: _text(cursor, id_))
        if not is_dataset_allowed(answer.dataset):
            raise _no_text()
        return answer

    def _page(self, cursor: Connection, point: Point, page: PageQuery, until: float) -> Made:
        likely, sample = self._hints.count_likely(cursor, point, page.texts), self._hints.sample(cursor, point)
        rows = None
        if is_sparse(page, sample, likely):
            rows = self._search.list_in_order(cursor, point, page, page.limit + 1, until)
        if rows is None:
            rows = list_page(cursor, page, sample, likely)
        total = likely if is_counted(page.texts) else None
        return _make_page(page, rows, [row["document"] for row in rows], total=total, version=point.version)

    def _hits(self, cursor: Connection, point: Point, page: PageQuery, until: float) -> Made:
        rows = self._search.list_hits(cursor, point, page, page.limit + 1, until)
        search, items = page.texts.search, []
        for row in rows:  # DuckDB's interrupt has no effect here
            check_time(until)
            items.append(with_members(row["document"], {"highlights": search.highlights(row["text"])}))
        return _make_page(page, rows, items, total=None, version=point.version)


def _key(kind: bytes, query: PageQuery | RankedQuery) -> bytes:
    return kind + query.fingerprint + f"{query.limit} {query.after}".encode()


def _make_page(
    query: PageQuery | RankedQuery, rows: list[Row], items: Iterable[str], **others: int | None
) -> Made:
    """Make a page of the first `limit` items; of the rows behind them, one more says that there are others."""
    following = None
    if len(rows) > query.limit:
        last = rows[query.limit - 1]
        following = encode_cursor(Position(last["rank"], UUID(str(last["id"]))), query.fingerprint)
    tail = orjson.dumps({"next_cursor": following} | others)
    body = b'{"items":[%b],%b' % (",".join(islice(items, query.limit)).encode(), tail[1:])
    return Made(body, query.texts.dataset, following)


def with_members(document: str, more: dict[str, Any]) -> str:
    """Return a JSON object with more members."""
    return f"{document[:-1]},{orjson.dumps(more)[1:].decode()}"


def _no_text() -> NotFound:
    return NotFound("No labelled text has this id.", code="text_not_found")


def _text(cursor: Connection, id_: UUID) -> Made:
    row = repository.get_item_or_none(cursor, id_)
    if row is None:
        raise _no_text()
    annotations = [
        {
            **annotation,
            "created_at": to_text(annotation["created_at"]),
            "updated_at": to_text(annotation["updated_at"]),
        }
        for annotation in repository.list_annotations(cursor, id_)
    ]
    # The other members keep their text: parsing them would change long numbers.
    members = msgspec.json.decode(row["document"], type=dict[str, msgspec.Raw])
    members["annotations"] = msgspec.Raw(orjson.dumps(annotations))
    return Made(msgspec.json.encode(members), row["dataset"])
