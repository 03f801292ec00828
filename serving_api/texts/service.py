"""Responses about texts, disputes and statistics, and the cache of responses that are ready to send."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import duckdb
import msgspec
import orjson

from core.datasets import Dataset
from core.models import LabelStatus
from core.web.keys import is_dataset_allowed
from core.web.problems import NotFound
from serving_api.metrics import CACHE_LOOKUPS, SEARCH_SCANS
from serving_api.replica.query_pool import QueryPool
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.replica.tables import LAYOUT
from serving_api.search.follower import SearchFollower
from serving_api.search.pages import check_time, list_hits, list_in_order
from serving_api.statistics import service
from serving_api.texts import cursor as cursors
from serving_api.texts import paging, repository
from serving_api.texts.cursor import Position
from serving_api.texts.paging import Hints
from serving_api.texts.parameters import to_text
from serving_api.texts.query import AgreementQuery, DisputedQuery, PageQuery, TextsQuery, is_counted
from serving_api.texts.repository import Row

# Memory of an entry besides its body, roughly.
_ENTRY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a response, and the point of the change feed that it shows."""

    body: bytes
    point: Point
    etag: str
    key: bytes  # what was asked for
    dataset: str  # whose texts it tells of
    next_cursor: str | None = None


class AnswerCache:
    """The most recently used responses of the newest version, up to a number of bytes. For one thread.

    `make bench ONLY=serving`: a page from here takes a twentieth of the processor time of one that DuckDB makes
    ("newest page, repeated" and "newest page, fresh").
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._point: Point | None = None
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def get_or_none(self, point: Point, key: bytes) -> Answer | None:
        """Return the answer for `key`, if it was made from `point`."""
        answer = self._answers.get(key) if point == self._point else None
        CACHE_LOOKUPS.labels("hit" if answer else "miss").inc()
        if answer:
            self._answers.move_to_end(key)
        return answer

    def holds(self, point: Point, key: bytes) -> bool:
        """Whether the answer for `key`, made from `point`, is there."""
        return point == self._point and key in self._answers

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer; those of other points are dropped."""
        if answer.point != self._point:
            self._answers.clear()
            self._bytes, self._point = 0, answer.point
        if key in self._answers:
            return
        self._answers[key] = answer
        self._bytes += len(answer.body) + _ENTRY_BYTES
        while self._bytes > self._bytes_max:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= len(oldest.body) + _ENTRY_BYTES


Connection = duckdb.DuckDBPyConnection


class Made(NamedTuple):
    """A new response, before it has an ETag."""

    body: bytes
    dataset: str
    next_cursor: str | None = None


class Answers:
    """The answers of the serving API, as bytes."""

    def __init__(
        self,
        replica: Replica,
        pool: QueryPool,
        cache: AnswerCache,
        search: SearchFollower,
    ) -> None:
        self._replica = replica
        self._pool = pool
        self._cache = cache
        self.hints = Hints()
        self._search = search

    async def page(self, page: PageQuery) -> Answer:
        """Return one page of labelled texts."""
        position = f"{page.limit} {page.after}".encode()
        if page.texts.filters.q is not None:
            until = self._pool.until()
            key = b"search" + page.texts.fingerprint + position
            return await self._cached(key, lambda c, p: self._hits(c, p, page, until))
        key, until = b"page" + page.texts.fingerprint + position, self._pool.until()
        return await self._cached(key, lambda c, p: self._page(c, p, page, until))

    async def disputed(self, query: DisputedQuery) -> Answer:
        """Return one page of the texts that need a decision."""
        position = f"{query.limit} {query.after}".encode()
        key = b"disputed" + query.fingerprint + position
        return await self._cached(key, lambda c, p: _disputed(c, p.version, query))

    async def text(self, id_: UUID) -> Answer:
        """Return one labelled text with its annotations.

        Raises:
            NotFound: there is no such text, it has no label yet, or the request's key may not use its dataset.
        """
        answer = await self._cached(b"text" + id_.bytes, lambda c, _: _text(c, id_))
        if not is_dataset_allowed(answer.dataset):
            raise _no_text()
        return answer

    async def stats(self, name: str, dataset: Dataset) -> Answer:
        """Return the totals of a dataset."""
        return await self._cached(b"stats" + name.encode(), lambda c, p: _stats(c, p.version, name, dataset))

    async def agreement(self, query: AgreementQuery) -> Answer:
        """Return how far annotators agree."""
        key = b"agreement" + query.texts.fingerprint + repr(query.pair).encode()
        return await self._cached(key, lambda c, p: _agreement(c, p.version, query))

    async def annotators(self, query: TextsQuery) -> Answer:
        """Return what each annotator has done."""
        key = b"annotators" + query.fingerprint
        return await self._cached(key, lambda c, p: _annotators(c, p.version, query))

    async def document(self, key: bytes, dataset: str, make: Callable[[Connection, Point], bytes]) -> Answer:
        """Return what `make` makes of the replica; `key` is the same for the same question, and only for it."""
        return await self.made(key, lambda cursor, point: Made(make(cursor, point), dataset))

    async def made(self, key: bytes, make: Callable[[Connection, Point], Made]) -> Answer:
        """Return what `make` makes of the replica; `key` as in `document`."""
        return await self._cached(key, make)

    def _page(self, cursor: Connection, point: Point, page: PageQuery, until: float) -> Made:
        likely, sample = self.hints.count_likely(cursor, point, page.texts), self.hints.sample(cursor, point)
        rows = None
        if paging.is_sparse(page, sample, likely):
            rows = self._search.ask(point, lambda index: list_in_order(cursor, page, page.limit + 1, index, until))
        if rows is None:
            rows = paging.list_page(cursor, page, sample, likely)
        following = cursor_after(rows, page.limit, _time_rank, page.texts.fingerprint)
        rest = {"total": likely if is_counted(page.texts) else None, "version": point.version}
        return make_page(list_documents(rows), page.limit, following, page.texts.dataset, rest)

    def _hits(self, cursor: Connection, point: Point, page: PageQuery, until: float) -> Made:
        rows = self._search.ask(point, lambda index: list_hits(cursor, page, page.limit + 1, index, until))
        if rows is None:
            SEARCH_SCANS.inc()
            rows = list_hits(cursor, page, page.limit + 1, None, until)
        following = cursor_after(rows, page.limit, lambda row: row["rank"], page.texts.fingerprint)
        search, items = page.texts.search, []
        for row in rows:  # DuckDB's interrupt does not reach here
            check_time(until)
            items.append(with_members(row["document"], {"highlights": search.highlights(row["text"])}))
        rest = {"total": None, "version": point.version}
        return make_page(items, page.limit, following, page.texts.dataset, rest)

    def ready_or_none(self, key: bytes) -> Answer | None:
        """Return a cached response, if it is of the newest version."""
        state = self._replica.state
        if state is None or not self._cache.holds(point := Point(state.identity, state.version), key):
            return None
        return self._cache.get_or_none(point, key)

    async def _cached(self, key: bytes, make: Callable[[Connection, Point], Made]) -> Answer:
        def work(cursor: Connection, point: Point) -> Answer:
            made = make(cursor, point)
            return Answer(made.body, point, etag(point, key), key, made.dataset, made.next_cursor)

        state = self._replica.loaded()
        answer = self._cache.get_or_none(Point(state.identity, state.version), key)
        if answer is None:
            answer = await self._pool.run(work)
            self._cache.put(key, answer)
        return answer


def _disputed(cursor: Connection, version: int, query: DisputedQuery) -> Made:
    rows = repository.list_disputed(cursor, query, query.limit + 1)
    following = cursor_after(rows, query.limit, lambda row: row["urgency"], query.fingerprint)
    return make_page(list_documents(rows), query.limit, following, query.texts.dataset, {"version": version})


def _agreement(cursor: Connection, version: int, query: AgreementQuery) -> Made:
    return _document(service.make_agreement(cursor, query), query.texts.dataset, version)


def _annotators(cursor: Connection, version: int, query: TextsQuery) -> Made:
    return _document(service.make_annotators(cursor, query), query.dataset, version)


def cursor_after(rows: list[Row], limit: int, rank: Callable[[Row], int], fingerprint: bytes) -> str | None:
    """Return the cursor after the first `limit` rows; None if no more rows follow."""
    if len(rows) <= limit:
        return None
    last = rows[limit - 1]
    return cursors.encode(Position(rank(last), UUID(str(last["id"]))), fingerprint)


def _time_rank(row: Row) -> int:
    return cursors.microseconds(row["labelled_at"])


def make_page(
    items: list[str], limit: int, following: str | None, dataset: str, rest: dict[str, int | None]
) -> Made:
    """Make a page of the first `limit` items and the other members. `following` is the cursor of the next page."""
    tail = orjson.dumps({"next_cursor": following} | rest)
    body = b'{"items":[%b],%b' % (",".join(items[:limit]).encode(), tail[1:])
    return Made(body, dataset, following)


def list_documents(rows: list[Row]) -> list[str]:
    return [row["document"] for row in rows]


def with_members(document: str, more: dict[str, Any]) -> str:
    """Return a JSON object with more members."""
    return f"{document[:-1]},{orjson.dumps(more)[1:].decode()}"


def _document(body: dict[str, Any], dataset: str, version: int) -> Made:
    return Made(orjson.dumps(body | {"version": version}), dataset)


def _no_text() -> NotFound:
    return NotFound("No labelled text has this id.", code="text_not_found")


def _text(cursor: Connection, id_: UUID) -> Made:
    row = repository.get_item_or_none(cursor, id_)
    if row is None:
        raise _no_text()
    return _detail(row, repository.list_annotations(cursor, id_))


def _detail(row: Row, said: list[Row]) -> Made:
    annotations = [
        {
            **annotation,
            "created_at": to_text(annotation["created_at"]),
            "updated_at": to_text(annotation["updated_at"]),
        }
        for annotation in said
    ]
    # Members stay as they are written: read as numbers, long ones would change.
    members = msgspec.json.decode(row["document"], type=dict[str, msgspec.Raw])
    members["annotations"] = msgspec.Raw(orjson.dumps(annotations))
    return Made(msgspec.json.encode(members), row["dataset"])


def _stats(cursor: Connection, version: int, name: str, dataset: Dataset) -> Made:
    by_label = dict.fromkeys(dataset.labels, 0) | repository.count_by(cursor, name, "label")
    by_label.pop(None, None)  # the disputed ones; they are in by_status
    shown = (LabelStatus.LABELLED.value, LabelStatus.DISPUTED.value)
    by_status = dict.fromkeys(shown, 0) | repository.count_by(cursor, name, "status")
    by_source = repository.count_by(cursor, name, "source")
    without_source = by_source.pop(None, 0)
    body = {
        "dataset": name,
        "total": sum(by_status.values()),
        "complete": repository.count_complete(cursor, name),
        "by_label": by_label,
        "by_status": by_status,
        "by_source": by_source,
        "without_source": without_source,
        "by_day": repository.count_by_day(cursor, name),
        "by_annotator": repository.count_by_annotator(cursor, name),
    }
    return _document(body, name, version)


def etag(point: Point, key: bytes) -> str:
    """Return the validator of the answer for `key` that is made from `point`."""
    # A rebuilt replica gives the same answer for the same version; another database or layout may not.
    parts = f"{LAYOUT} {point.identity} {point.version} ".encode() + key
    return f'"{hashlib.sha256(parts).hexdigest()[:32]}"'
