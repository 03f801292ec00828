"""Exports under way: so many at once, each with a thread and a read transaction of its own."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

import duckdb

from core.web.problems import ShareExceeded, Unavailable
from core.web.rate_limits import Places, current_client
from serving_api.exports.formats import Chunk, Format
from serving_api.exports.repository import ExportQuery, read_batches, schema_of
from serving_api.metrics import QUERIES_REFUSED
from serving_api.replica.replica import Replica
from serving_api.texts import repository
from serving_api.texts.repository import Point
from serving_api.watchdog import Crew, Job

_INTERRUPT_SECONDS = 0.05


class Exports:
    """A bounded number of exports, of which one client has a share."""

    def __init__(
        self, replica: Replica, places: Places, crew: Crew, *, idle_seconds: float, chunk_seconds: float
    ) -> None:
        self.idle_seconds = idle_seconds
        self.chunk_seconds = chunk_seconds
        self._replica = replica
        self._places = places
        self._crew = crew

    def begin(self, query: ExportQuery, format_: Format) -> "Export":
        """Take a place; `end` gives it back.

        Raises:
            ShareExceeded: the client has its share of them.
            Unavailable: all are taken.
        """
        client = current_client()
        try:
            self._places.take(client)
        except (ShareExceeded, Unavailable):
            QUERIES_REFUSED.labels("exports").inc()
            raise
        return Export(self._replica, query, format_, self._crew, lambda: self._places.give_back(client))


class Export:
    """One version of the replica, as the chunks of a file; made only when they are asked for."""

    def __init__(
        self, replica: Replica, query: ExportQuery, format_: Format, crew: Crew, on_end: Callable[[], None]
    ) -> None:
        self.point: Point | None = None  # known with the first chunk
        self.query = query
        self.format = format_
        self._replica = replica
        self._crew = crew
        self._job: Job | None = None
        self._on_end = on_end
        self._thread = ThreadPoolExecutor(1, "export")
        self._chunks = self._make()
        self._running: list[duckdb.DuckDBPyConnection] = []

    def next(self) -> "asyncio.Future[Chunk | None]":
        """Begin to make the next chunk; None after the last one.

        Raises (when awaited):
            Unavailable: nothing is loaded yet, the replica is being closed or was found damaged, or DuckDB lacks
                memory.
        """
        return asyncio.wrap_future(self._thread.submit(copy_context().run, lambda: next(self._chunks, None)))

    def end(self) -> None:
        """Stop what is under way and give the place back, soon; must be called on the event loop."""
        if self._job:
            self._job.until = time.monotonic()
        closing = self._thread.submit(self._chunks.close)  # after the chunk that is being made
        closing.add_done_callback(lambda _: self._on_end())
        self._thread.shutdown(wait=False)
        self._interrupt(closing)

    def _make(self) -> Generator[Chunk]:
        try:
            with self._crew.working(math.inf) as self._job, self._replica.reading() as cursor:
                self._running.append(cursor)
                self.point = repository.get_point(cursor)
                schema = schema_of(cursor, self.format.columns)
                yield from self.format.encode(schema, read_batches(cursor, self.query, self.format.columns))
        except duckdb.OutOfMemoryException as error:
            raise Unavailable("Memory is short.", code="too_busy", retry_after_seconds=5) from error

    def _interrupt(self, closing: "Future[None]") -> None:
        # Again and again: an interrupt between two statements is lost.
        if closing.done():
            return
        for cursor in self._running:
            with contextlib.suppress(duckdb.ConnectionException):  # it was closed just now
                cursor.interrupt()
        asyncio.get_running_loop().call_later(_INTERRUPT_SECONDS, self._interrupt, closing)
