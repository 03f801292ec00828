"""Writes each export to disk, once for each version and query, and serves the file to all its clients.

Readers such as polars and fsspec request the length first and then ranges, so the file must be complete. A file
also ends the read transaction early: a slow client holds an open file, and no version of the replica.
"""

import asyncio
import hashlib
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import chain
from typing import BinaryIO, NamedTuple

import duckdb
import pyarrow as pa
import structlog
from cachetools import LRUCache

from core.web.problems import Problem, ShareExceeded, Unavailable
from core.web.rate_limits import Places, current_client
from serving_api.changes.service import feed_of
from serving_api.exports.export_files import (
    Batches,
    ExportFile,
    ExportFolder,
    Format,
    open_file,
    read_small,
)
from serving_api.exports.repository import ExportQuery, read_batches, schema_of
from serving_api.metrics import EXPORTS, QUERIES_REFUSED
from serving_api.replica import repository
from serving_api.replica.query_pool import FairThreads, etag
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.watchdog import Crew, Job

log = structlog.get_logger()

_READING_THREADS = 16
_ATTEMPTS = 3
_FILES_KNOWN = 256
CHECK_BYTES = 16 * 2**20  # the folder's limits are checked whenever a file has grown by this


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


class _Job(NamedTuple):
    """An export that is being written. Requests for the same one share it."""

    task: "asyncio.Task[WrittenExport]"
    version: int  # the file is of this version or a later one


class Exports:
    """Writes a bounded number of exports in parallel, a share of them for each client. Serves any number."""

    def __init__(
        self,
        replica: Replica,
        places: Places,
        crew: Crew,
        folder: ExportFolder,
        *,
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
        self._folder = folder
        self._writers = ThreadPoolExecutor(crew.threads, "export")
        self._jobs: dict[tuple[str, str], _Job] = {}  # by key and rows, here and below
        self._written: LRUCache[tuple[str, str], ExportFile] = LRUCache(_FILES_KNOWN)  # by this process
        replica.on_change(lambda _: self._purge_or_warn())

    def open(self) -> None:
        """Create the folder, and remove the unfinished files of an earlier process. The replica must be open."""
        self._folder.open(self._replica.folder.path.name)

    async def get(self, request: ExportRequest) -> OpenExport:
        """Return an export as an open file; writes it if there is none yet.

        Raises:
            ShareExceeded: the client already has its share of the exports that are being written.
            Unavailable: nothing is loaded yet, too many exports are being written, it takes too long, or memory or
                disk is short.
        """
        client = current_client()
        for _ in range(_ATTEMPTS):
            point = self._replica.loaded().point
            rows = request.rows_at(point)
            known = self._written.get((request.key, rows))
            found = await self.threads.run(partial(self._find, request, known, client))
            if found:
                return found
            written = await asyncio.shield(self._write(request, rows, point.version))
            if written.content is not None and written.client == client:
                return OpenExport(written.file, io.BytesIO(written.content), len(written.content))
            with suppress(FileNotFoundError):  # removed meanwhile
                return await self.threads.run(partial(self._open, request, written.file, client))
        raise Unavailable("The export was removed meanwhile.", code="too_busy", retry_after_seconds=5)

    def purge(self) -> None:
        """Remove the files that may contain a forgotten text."""
        state = self._replica.state
        if state is not None:
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
        return min([version, *(job.version + 1 for job in list(self._jobs.values()))])

    async def close(self) -> None:
        """Cancel the jobs. Closing the replica interrupts their queries."""
        tasks = [job.task for job in self._jobs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.threads.close(wait_for_all=False)
        self._writers.shutdown(wait=False)

    def _find(self, request: ExportRequest, file: ExportFile | None, client: str) -> OpenExport | None:
        """Return the file of which the client has read parts, or else `file`, if it still exists.

        Another process may have written the one that the client reads.
        """
        if request.etags:
            file = self._folder.find_tagged(request.key, request.etags) or file
        elif request.continues:
            file = self._folder.followed(request.key, client) or file
        with suppress(FileNotFoundError):  # removed: a text was forgotten, or space is short
            return file and self._open(request, file, client)
        return None

    def _open(self, request: ExportRequest, file: ExportFile, client: str) -> OpenExport:
        source, size = open_file(file)
        self._folder.follow(request.key, client, file)
        return OpenExport(file, source, size)

    def _write(self, request: ExportRequest, rows: str, version: int) -> "asyncio.Task[WrittenExport]":
        """Return the task that writes this file."""
        key = request.key, rows
        if key not in self._jobs:
            task = asyncio.create_task(self._write_in_thread(request))
            self._jobs[key] = _Job(task, version)
            task.add_done_callback(partial(self._end_job, key))
        return self._jobs[key].task

    def _end_job(self, key: tuple[str, str], task: "asyncio.Task[WrittenExport]") -> None:
        del self._jobs[key]
        # Asking for the exception marks it as seen: all clients may have left.
        if not task.cancelled() and task.exception() is None:
            file = task.result().file
            self._written[key[0], file.rows] = file

    async def _write_in_thread(self, request: ExportRequest) -> WrittenExport:
        client = current_client()
        try:
            self._places.take(client)
        except (ShareExceeded, Unavailable):
            QUERIES_REFUSED.labels("exports").inc()
            raise
        try:
            work = self._writers.submit(copy_context().run, self._write_file, request, client)
            work.add_done_callback(lambda _: self._places.give_back(client))
            return await asyncio.wrap_future(work)
        except Exception as error:
            EXPORTS.labels(request.format.name, "failed").inc()
            log.warning("export.failed", format=request.format.name, error=str(error))
            if isinstance(error, Problem):
                raise
            raise Unavailable("The export failed.", code="export_failed", retry_after_seconds=5) from error

    def _write_file(self, request: ExportRequest, client: str) -> WrittenExport:
        """Write one version into a new file. Delete it if it may contain a text that was forgotten meanwhile."""
        with self._folder.writing() as file:
            point = self._write_rows(request, file)
            content = read_small(file)
            kept = self._folder.keep(
                file, request.key, request.rows_at(point), feed_of(point.identity), point.version
            )
        if point.version < self._replica.forgotten:
            self.purge()
            return WrittenExport(kept, None, client)
        if content is not None:
            self._folder.follow(request.key, client, kept)
        return WrittenExport(kept, content, client)

    def _write_rows(self, request: ExportRequest, file: BinaryIO) -> Point:
        """Write all rows, and return their version.

        Raises:
            Unavailable: the next rows took too long, the replica is being closed or is damaged, or DuckDB lacks
                memory.
        """
        until, format_ = time.monotonic() + self._write_seconds, request.format
        with self._replica.reading() as cursor, self._crew.working(until, cursor.interrupt) as job:
            try:
                point = repository.get_point(cursor)
                batches = self._watched(read_batches(cursor, request.query, format_.columns), job, file)
                first = next(batches, None)
                # `schema_of` runs another query: planning it takes as long as a small export as CSV.
                schema = schema_of(cursor, format_.columns) if first is None else first.schema
                format_.write(file, schema, batches if first is None else chain([first], batches))
            except duckdb.OutOfMemoryException as error:
                raise Unavailable("Memory is short.", code="too_busy", retry_after_seconds=5) from error
            except Exception as error:
                if not job.is_interrupted:
                    raise
                detail = f"The next rows were not found within {self._write_seconds:g} s."
                raise Unavailable(detail, code="query_timeout", retry_after_seconds=5) from error
        return point

    def _watched(self, batches: Batches, job: Job, file: BinaryIO) -> Iterator[pa.RecordBatch]:
        """Yield the batches. Each extends the time limit; now and then the folder's limits are checked."""
        checked = 0
        for batch in batches:
            yield batch
            job.until = time.monotonic() + self._write_seconds
            if file.tell() - checked >= CHECK_BYTES:
                checked = file.tell()
                file.flush()  # so that the folder's listing has the size
                self._folder.make_room()
