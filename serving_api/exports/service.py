"""Writes each export to disk, once for each version and query, and serves the file to all its clients.

Readers such as polars and fsspec request the length first and then ranges, so the file must be complete. A file
also ends the read transaction early: a slow client holds an open file, and no version of the replica.
"""

import asyncio
import hashlib
import io
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import duckdb
import pyarrow as pa
import structlog

from core.web.problems import Problem, ShareExceeded, Unavailable
from core.web.rate_limits import Places, current_client
from serving_api.changes.service import feed_of
from serving_api.exports.export_files import ExportFile, ExportFolder, Growing, open_file
from serving_api.exports.formats import Batches, Format
from serving_api.exports.repository import ExportQuery, read_batches, schema_of
from serving_api.metrics import EXPORTS, QUERIES_REFUSED
from serving_api.replica import repository
from serving_api.replica.query_pool import FairThreads, etag
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.watchdog import Crew, Job

log = structlog.get_logger()

_INTERRUPT_SECONDS = 0.05
_READING_THREADS = 16
_ATTEMPTS = 3
_FILES_KNOWN = 256
_MIN_FREE_BYTES = 2**30  # left on the disk, which the replica needs as well


class ExportRequest(NamedTuple):
    """A request for an export: its query, its format and its version."""

    query: ExportQuery
    format: Format
    etags: list[str]  # a version with one of these is preferred, if its file exists
    continues: bool  # the client continues to read a file, and needs the version that it began with

    @property
    def key(self) -> str:
        """Identifies format, rows and order, but not the version."""
        parts = f"export {self.format.columns} {self.format.name} ".encode() + self.query.key
        return hashlib.sha256(parts).hexdigest()[:32]

    def rows_at(self, point: Point) -> str:
        """Return the hash of the rows in this version: the part of the ETag that is the same in all processes."""
        return etag(point, self.key.encode()).strip('"')


class OpenExport(NamedTuple):
    """A finished export, open: it can be read even after the file is removed."""

    file: ExportFile
    source: BinaryIO
    size: int


class WrittenExport(NamedTuple):
    """A new export. A small one is in memory: opening it again would take a fifth of its time."""

    file: ExportFile
    content: bytes | None  # of a small export
    client: str  # the folder records that this client reads it


class Exports:
    """Writes a bounded number of exports in parallel, a share of them for each client. Serves any number."""

    def __init__(
        self,
        replica: Replica,
        places: Places,
        crew: Crew,
        folder: Path,
        *,
        max_bytes: int,
        idle_seconds: float,
        write_seconds: float,
    ) -> None:
        """`write_seconds`: the time limit to find the next rows while a file is written."""
        self.idle_seconds = idle_seconds
        self.threads = FairThreads("downloads of exports", _READING_THREADS)
        self._replica = replica
        self._places = places
        self._crew = crew
        self._write_seconds = write_seconds
        self._folder = ExportFolder(folder, max_bytes, _MIN_FREE_BYTES)
        self._lock = threading.Lock()
        self._is_open = False
        self._jobs: dict[tuple[str, str], asyncio.Task[WrittenExport]] = {}  # by key and rows, here and below
        self._written: dict[str, ExportFile] = {}  # by this process: the last one by key
        self._begun_versions: dict[object, int] = {}  # of the files being written
        replica.on_change(lambda _: self._purge_or_warn())

    async def get(self, request: ExportRequest) -> OpenExport:
        """Return an export as an open file; writes it if there is none yet.

        Raises:
            ShareExceeded: the client already has its share of the exports that are being written.
            Unavailable: nothing is loaded yet, too many exports are being written, it takes too long, or memory or
                disk is short.
        """
        client = current_client()
        for _ in range(_ATTEMPTS):
            state = self._replica.loaded()
            rows = request.rows_at(Point(state.identity, state.version))
            file = await self._begun(request, client) or self._known(request, rows)
            if file is None:
                written = await asyncio.shield(self._write(request, rows))
                if written.content is not None and written.client == client:
                    return OpenExport(written.file, io.BytesIO(written.content), len(written.content))
                file = written.file
            with suppress(FileNotFoundError):  # removed meanwhile: a text was forgotten, or space is short
                return await self.threads.run(partial(self._open, request, file, client))
            self._written.pop(request.key, None)
            request = request._replace(etags=[], continues=False)
        raise Unavailable("The export was removed meanwhile.", code="too_busy", retry_after_seconds=5)

    def purge(self) -> None:
        """Remove the files that may contain a forgotten text."""
        state = self._replica.state
        if state is None:
            return
        with self._lock:
            if not self._is_open:
                self._folder.open(self._owner)
                self._is_open = True
        self._folder.purge(feed_of(state.identity), self._replica.forgotten)

    def _purge_or_warn(self) -> None:
        """Purge. A failing disk must not stop the follower; `traceless_below` raises then."""
        try:
            self.purge()
        except OSError as error:
            log.warning("export.purge_failed", error=str(error))

    def traceless_below(self, version: int) -> int:
        """Return the version below which no file contains a forgotten text; `version` is the replica's."""
        self.purge()
        with self._lock:
            return min([version, *(begun + 1 for begun in self._begun_versions.values())])

    async def close(self) -> None:
        """Cancel the jobs. Closing the replica interrupts their queries."""
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)
        self.threads.close(wait_for_all=False)

    @property
    def _owner(self) -> str:
        return self._replica.folder.path.name

    async def _begun(self, request: ExportRequest, client: str) -> ExportFile | None:
        """Return the file of which the client has read parts. Another process may have written it."""
        if request.etags:
            return await self.threads.run(lambda: self._folder.find_tagged(request.key, request.etags))
        if request.continues:
            return await self.threads.run(lambda: self._folder.followed(request.key, client))
        return None

    def _known(self, request: ExportRequest, rows: str) -> ExportFile | None:
        file = self._written.get(request.key)
        return file if file and file.rows == rows else None

    def _open(self, request: ExportRequest, file: ExportFile, client: str) -> OpenExport:
        source, size = open_file(file)
        self._folder.follow(request.key, client, file)
        return OpenExport(file, source, size)

    def _write(self, request: ExportRequest, rows: str) -> "asyncio.Task[WrittenExport]":
        """Return the job that writes this file; requests for the same one share it."""
        job = self._jobs.get((request.key, rows))
        if job is None:
            job = asyncio.create_task(self._write_in_place(request))
            self._jobs[request.key, rows] = job
            job.add_done_callback(partial(self._end_job, (request.key, rows)))
        return job

    def _end_job(self, of: tuple[str, str], job: "asyncio.Task[WrittenExport]") -> None:
        del self._jobs[of]
        # Asking for the exception marks it as seen: all clients may have left.
        if not job.cancelled() and job.exception() is None and job.result().file.rows == of[1]:
            if len(self._written) >= _FILES_KNOWN:
                self._written.clear()
            self._written[of[0]] = job.result().file

    async def _write_in_place(self, request: ExportRequest) -> WrittenExport:
        client = current_client()
        try:
            self._places.take(client)
        except (ShareExceeded, Unavailable):
            QUERIES_REFUSED.labels("exports").inc()
            raise
        thread = ThreadPoolExecutor(1, "export")
        writing = _Writing(request, self._replica, self._crew, time.monotonic() + self._write_seconds)
        try:
            work = thread.submit(copy_context().run, self._write_file, writing)
            work.add_done_callback(lambda _: self._places.give_back(client))
            thread.shutdown(wait=False)
            try:
                return await self._in_time(writing, asyncio.wrap_future(work))
            finally:
                while not work.done():  # in a loop: an interrupt between two statements is lost
                    writing.stop()
                    await asyncio.sleep(_INTERRUPT_SECONDS)
        except Exception as error:
            EXPORTS.labels(request.format.name, "failed").inc()
            log.warning("export.failed", format=request.format.name, error=str(error))
            if isinstance(error, Problem):
                raise
            raise Unavailable("The export failed.", code="export_failed", retry_after_seconds=5) from error

    async def _in_time(self, writing: "_Writing", work: "asyncio.Future[WrittenExport]") -> WrittenExport:
        while True:
            left = writing.until - time.monotonic()
            await asyncio.wait({work}, timeout=max(left, 0))
            if work.done():
                return work.result()
            if left <= 0:
                detail = f"The next rows were not found within {self._write_seconds:g} s."
                raise Unavailable(detail, code="query_timeout", retry_after_seconds=5)

    def _write_file(self, writing: "_Writing") -> WrittenExport:
        """Write one version into a new file. Delete it if it may contain a text that was forgotten meanwhile."""
        request, token = writing.request, object()
        if not self._is_open:
            self.purge()
        with self._lock:
            self._begun_versions[token] = self._replica.loaded().version
        try:
            with self._folder.writing(self._owner) as (path, file):
                point = writing.write_to(file)
                file.finish()
                kept = self._folder.keep(
                    path, request.key, request.rows_at(point), feed_of(point.identity), point.version
                )
            client = current_client()
            if point.version < self._replica.forgotten:
                self.purge()
                return WrittenExport(kept, None, client)
            if file.content is not None:
                self._folder.follow(request.key, client, kept)
            return WrittenExport(kept, file.content, client)
        finally:
            with self._lock:
                del self._begun_versions[token]


class _Writing:
    """An export that is being written, in its own thread."""

    def __init__(self, request: ExportRequest, replica: Replica, crew: Crew, until: float) -> None:
        self.request = request
        self.until = until  # by the monotonic clock; each batch of rows extends it
        self._seconds = until - time.monotonic()
        self._replica = replica
        self._crew = crew
        self._job: Job | None = None
        self._cursor: duckdb.DuckDBPyConnection | None = None

    def write_to(self, file: Growing) -> Point:
        """Write all rows, and return their version.

        Raises:
            Unavailable: the replica is being closed or is damaged, or DuckDB lacks memory.
        """
        format_ = self.request.format
        try:
            with self._crew.working(math.inf) as self._job, self._replica.reading() as self._cursor:
                point = repository.get_point(self._cursor)
                batches = self._watched(read_batches(self._cursor, self.request.query, format_.columns))
                first = next(batches, None)
                # `schema_of` runs another query: planning it takes as long as a small export as CSV.
                schema = schema_of(self._cursor, format_.columns) if first is None else first.schema
                found = batches if first is None else chain([first], batches)
                format_.write(cast(BinaryIO, file), schema, found)
        except duckdb.OutOfMemoryException as error:
            raise Unavailable("Memory is short.", code="too_busy", retry_after_seconds=5) from error
        finally:
            self._cursor = None
        return point

    def stop(self) -> None:
        """Interrupt the query; the watchdog counts the thread as overdue from now on."""
        if self._job:
            self._job.until = min(self._job.until, time.monotonic())
        if cursor := self._cursor:
            with suppress(duckdb.ConnectionException):  # closed just now
                cursor.interrupt()

    def _watched(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch
            self.until = time.monotonic() + self._seconds
