"""Responses about texts: pages, searches, disputes and single texts."""

from collections.abc import Callable, Iterable
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
from serving_api.texts import paging, repository
from serving_api.texts.paging import Hints
from serving_api.texts.parameters import to_text
from serving_api.texts.query import PageQuery, Position, RankedQuery, encode_cursor
from serving_api.texts.repository import Row, is_counted


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
        if paging.is_sparse(page, sample, likely):
            rows = self._search.list_in_order(cursor, point, page, page.limit + 1, until)
        if rows is None:
            rows = paging.list_page(cursor, page, sample, likely)
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
