"""Runs queries in threads that clients share fairly, and caches the responses until a label changes."""

import asyncio
import contextlib
import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import duckdb
from cachetools import LRUCache

from core.web.problems import ShareExceeded, Unavailable
from core.web.rate_limits import Turns, current_client
from serving_api.metrics import CACHE_LOOKUPS, QUERIES_REFUSED
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.replica.tables import LAYOUT
from serving_api.watchdog import Crew

T = TypeVar("T")

# The number of connections already bounds this work.
ANY_NUMBER = 1_000_000


class FairThreads:
    """A bounded number of threads."""

    def __init__(self, what: str, threads: int, waiting: int = ANY_NUMBER, share: float = 1) -> None:
        """`what` names the work in problems; `share` is the part of `waiting` for one client."""
        self._threads = ThreadPoolExecutor(threads, what.replace(" ", "-"))
        self._turns = Turns(what, threads, waiting, share)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, and return its result; raises as `begin`."""
        return await (await self.begin(work))

    async def begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Wait for a turn and begin. The turn ends with the work, also if the client disconnects.

        Raises:
            ShareExceeded: this client has too many requests in the queue.
            Unavailable: the queue is full.
        """
        await self._turns.enter(current_client())
        try:
            job = self._threads.submit(copy_context().run, work)  # with the request's id for log lines
        except RuntimeError:  # closed
            self._turns.leave()
            raise
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda _: self._leave(loop))
        return asyncio.wrap_future(job)

    def close(self, *, wait_for_all: bool = True) -> None:
        """Stop the threads after the running work, and after the queued work too if `wait_for_all`."""
        self._threads.shutdown(cancel_futures=not wait_for_all)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._turns.leave)


Connect = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


class QueryPool:
    """Runs queries of the replica in a bounded number of threads."""

    def __init__(
        self,
        replica: Replica,
        threads: int,
        queue: int,
        seconds: float,
        *,
        share: float = 1,
        crew: Crew | None = None,
    ) -> None:
        """`share`: the part of the queue that one client may take; `crew` watches the running queries."""
        self._replica = replica
        self._threads = FairThreads("queries", threads, queue, share)
        self._seconds = seconds
        self._crew = crew or Crew("queries", threads, math.inf)

    def close(self) -> None:
        """Stop the threads after their running queries."""
        self._threads.close(wait_for_all=False)

    def until(self) -> float:
        """Return the deadline, by the monotonic clock, of a query that starts now."""
        return time.monotonic() + self._seconds

    async def run(self, work: Callable[[duckdb.DuckDBPyConnection, Point], T]) -> T:
        """Return the result of `work`, which gets a cursor in a read-only transaction, and the point that it sees.

        Raises:
            ShareExceeded: this client has too many queries in the queue.
            Unavailable: the queue is full, the query took too long, or nothing is loaded yet.
        """

        def ask(running: _Running) -> T:
            with self._replica.querying() as (cursor, point), running.on(cursor):
                return work(cursor, point)

        return await self._run(ask)

    async def run_beside(self, connect: Connect, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Return the result of `work`, which gets the cursor of `connect`. Raises as `run`."""

        def ask(running: _Running) -> T:
            with connect() as cursor, running.on(cursor):
                return work(cursor)

        return await self._run(ask)

    async def _run(self, ask: "Callable[[_Running], T]") -> T:
        running, until = _Running(), self.until()

        def work() -> T:
            with self._crew.working(until):
                return ask(running)

        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes as the answer does.
            async with asyncio.timeout(self._seconds):
                return await (await self._begin(work))
        except TimeoutError as error:
            raise _took_too_long() from error
        finally:
            running.interrupt()

    async def _begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        try:
            return await self._threads.begin(work)
        except (ShareExceeded, Unavailable) as error:
            QUERIES_REFUSED.labels("share" if isinstance(error, ShareExceeded) else "full").inc()
            raise


class _Running:
    """The running query of one request. The lock is needed since its cursor may serve another request next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cursor: duckdb.DuckDBPyConnection | None = None

    @contextlib.contextmanager
    def on(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        with self._lock:
            self._cursor = cursor
        try:
            yield
        finally:
            with self._lock:
                self._cursor = None

    def interrupt(self) -> None:
        """Interrupt the query if it still runs: its client was refused or has disconnected."""
        with self._lock:
            if self._cursor:
                self._cursor.interrupt()


def check_time(until: float) -> None:
    """Raise Unavailable if it is later than `until`, by the monotonic clock."""
    if time.monotonic() > until:
        raise _took_too_long()


def _took_too_long() -> Unavailable:
    QUERIES_REFUSED.labels("time").inc()
    return Unavailable("The query took too long.", code="query_timeout", retry_after_seconds=5)


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

        answer = self._cache.get_or_none(self._replica.loaded().point, key)
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
        if state is None or not self._cache.holds(state.point, key):
            return None
        return self._cache.get_or_none(state.point, key)


def etag(point: Point, key: bytes) -> str:
    """Return the validator of the answer for `key` that is made from `point`."""
    # A rebuilt replica gives the same answer for the same version; another database or layout may not.
    parts = f"{LAYOUT} {point.identity} {point.version} ".encode() + key
    return f'"{hashlib.sha256(parts).hexdigest()[:32]}"'
