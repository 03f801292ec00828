"""Runs DuckDB queries in threads: a bounded number at once, a bounded queue, a time limit for each."""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import duckdb

from core.web.problems import ShareExceeded, Unavailable
from serving_api.metrics import QUERIES_REFUSED
from serving_api.replica.fair_threads import FairThreads
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.watchdog import Crew

T = TypeVar("T")
Connect = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


class QueryPool:
    """A bounded number of threads that read the replica."""

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
        """Return what `work` makes of a cursor in a read-only transaction, and of the point that it sees.

        Raises:
            ShareExceeded: this client has too many queries in the queue.
            Unavailable: the queue is full, the query took too long, or nothing is loaded yet.
        """

        def ask(running: _Running) -> T:
            with self._replica.querying() as (cursor, point), running.on(cursor):
                return work(cursor, point)

        return await self._run(ask)

    async def run_beside(self, connect: Connect, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Return what `work` makes of the cursor that `connect` gives; raises as `run` does."""

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
            QUERIES_REFUSED.labels("time").inc()
            raise Unavailable("The query took too long.", code="query_timeout", retry_after_seconds=5) from error
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
