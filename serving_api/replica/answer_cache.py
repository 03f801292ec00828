"""Makes responses from the replica, and caches them until a label changes."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
from cachetools import LRUCache

from serving_api.metrics import CACHE_LOOKUPS
from serving_api.replica.query_pool import QueryPool
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.replica.tables import LAYOUT

# Approximate memory of a cache entry besides its body.
_ENTRY_BYTES = 1024

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a response, and the point of the change feed that it shows."""

    body: bytes
    point: Point
    etag: str
    key: bytes  # identifies the request
    dataset: str  # of the texts in the body
    next_cursor: str | None = None


class Made(NamedTuple):
    """A new response, before it has an ETag."""

    body: bytes
    dataset: str
    next_cursor: str | None = None


class AnswerCache:
    """The most recently used responses of the newest version, up to a number of bytes. For one thread.

    `make bench ONLY=serving`: a page from here takes a twentieth of the processor time of one that DuckDB makes
    ("newest page, repeated" and "newest page, fresh").
    """

    def __init__(self, bytes_max: int) -> None:
        self._point: Point | None = None
        self._answers: LRUCache[bytes, Answer] = LRUCache(
            bytes_max, lambda answer: len(answer.body) + _ENTRY_BYTES
        )

    def get_or_none(self, point: Point, key: bytes) -> Answer | None:
        """Return the answer for `key`, if it was made from `point`."""
        answer = self._answers.get(key) if point == self._point else None
        CACHE_LOOKUPS.labels("hit" if answer else "miss").inc()
        return answer

    def holds(self, point: Point, key: bytes) -> bool:
        """Whether the answer for `key`, made from `point`, is cached."""
        return point == self._point and key in self._answers

    def put(self, key: bytes, answer: Answer) -> None:
        """Cache an answer; those of other points are dropped."""
        if answer.point != self._point:
            self._answers.clear()
            self._point = answer.point
        with suppress(ValueError):  # it is larger than the cache
            self._answers[key] = answer


class Answers:
    """Makes responses in the query pool, and caches them until a label changes."""

    def __init__(self, replica: Replica, pool: QueryPool, cache: AnswerCache) -> None:
        self._replica = replica
        self._pool = pool
        self._cache = cache

    async def get(self, key: bytes, make: Callable[[Connection, Point], Made]) -> Answer:
        """Return the response for `key`, from the cache or by `make`; raises as `QueryPool.run`.

        The key must identify the body: equal keys for equal bodies, and different keys for different ones.
        """

        def work(cursor: Connection, point: Point) -> Answer:
            made = make(cursor, point)
            return Answer(made.body, point, etag(point, key), key, made.dataset, made.next_cursor)

        state = self._replica.loaded()
        answer = self._cache.get_or_none(Point(state.identity, state.version), key)
        if answer is None:
            answer = await self._pool.run(work)
            self._cache.put(key, answer)
        return answer

    async def document(self, key: bytes, dataset: str, make: Callable[[Connection, Point], bytes]) -> Answer:
        """Return the response for `key` as `get` does; `make` returns its body."""
        return await self.get(key, lambda cursor, point: Made(make(cursor, point), dataset))

    def ready_or_none(self, key: bytes) -> Answer | None:
        """Return a cached response, if it is of the newest version."""
        state = self._replica.state
        if state is None or not self._cache.holds(point := Point(state.identity, state.version), key):
            return None
        return self._cache.get_or_none(point, key)


def etag(point: Point, key: bytes) -> str:
    """Return the validator of the answer for `key` that is made from `point`."""
    # A rebuilt replica gives the same answer for the same version; another database or layout may not.
    parts = f"{LAYOUT} {point.identity} {point.version} ".encode() + key
    return f'"{hashlib.sha256(parts).hexdigest()[:32]}"'
