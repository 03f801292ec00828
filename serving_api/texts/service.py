"""Responses about texts: pages, searches, disputes and single texts."""

from collections.abc import Callable
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
from serving_api.texts.query import DisputedQuery, PageQuery, Position, encode_cursor, microseconds
from serving_api.texts.repository import Row, is_counted


class Search(Protocol):
    """Finds items with the search index: `serving_api.search.follower.SearchFollower`.

    Both functions return at most `count` items after the page's position, and raise Unavailable after `until`, by
    the monotonic clock.
    """

    def list_hits(
        self, cursor: Connection, point: Point, page: PageQuery, count: int, until: float, /
    ) -> list[Row]:
        """Return the items that a search finds, each with its `rank`; without an index it reads all texts."""

    def list_in_order(
        self, cursor: Connection, point: Point, page: PageQuery, count: int, until: float, /
    ) -> list[Row] | None:
        """Return the items that the filters leave, by time; None if there is no index."""


class Texts:
    """Makes the responses about texts."""

    def __init__(self, answers: Answers, pool: QueryPool, hints: Hints, search: Search) -> None:
        self._answers = answers
        self._pool = pool
        self._hints = hints
        self._search = search

    async def page(self, page: PageQuery) -> Answer:
        """Return one page of labelled texts."""
        kind, make = (b"page", self._page) if page.texts.filters.q is None else (b"search", self._hits)
        until = self._pool.until()
        key = kind + page.texts.fingerprint + _position(page)
        return await self._answers.get(key, lambda cursor, point: make(cursor, point, page, until))

    async def disputed(self, query: DisputedQuery) -> Answer:
        """Return one page of the texts that need a decision."""
        key = b"disputed" + query.fingerprint + _position(query)
        return await self._answers.get(key, lambda cursor, point: _disputed(cursor, point.version, query))

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
        following = cursor_after(rows, page.limit, _time_rank, page.texts.fingerprint)
        rest = {"total": likely if is_counted(page.texts) else None, "version": point.version}
        return make_page(list_documents(rows), page.limit, following, page.texts.dataset, rest)

    def _hits(self, cursor: Connection, point: Point, page: PageQuery, until: float) -> Made:
        rows = self._search.list_hits(cursor, point, page, page.limit + 1, until)
        following = cursor_after(rows, page.limit, lambda row: row["rank"], page.texts.fingerprint)
        search, items = page.texts.search, []
        for row in rows:  # DuckDB's interrupt has no effect here
            check_time(until)
            items.append(with_members(row["document"], {"highlights": search.highlights(row["text"])}))
        rest = {"total": None, "version": point.version}
        return make_page(items, page.limit, following, page.texts.dataset, rest)


def _position(query: PageQuery | DisputedQuery) -> bytes:
    return f"{query.limit} {query.after}".encode()


def _disputed(cursor: Connection, version: int, query: DisputedQuery) -> Made:
    rows = repository.list_disputed(cursor, query, query.limit + 1)
    following = cursor_after(rows, query.limit, lambda row: row["urgency"], query.fingerprint)
    return make_page(list_documents(rows), query.limit, following, query.texts.dataset, {"version": version})


def cursor_after(rows: list[Row], limit: int, rank: Callable[[Row], int], fingerprint: bytes) -> str | None:
    """Return the cursor after the first `limit` rows; None if no more rows follow."""
    if len(rows) <= limit:
        return None
    last = rows[limit - 1]
    return encode_cursor(Position(rank(last), UUID(str(last["id"]))), fingerprint)


def _time_rank(row: Row) -> int:
    return microseconds(row["labelled_at"])


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
