"""Group commit: submissions that arrive together are stored by one transaction, and acknowledged when it commits.

There is no timer: a batch is what has arrived while the previous one was committed.
"""

import asyncio
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import psycopg
import structlog

from core.connections import connect
from core.datasets import Datasets
from core.settings import DatabaseSettings
from core.web.problems import Problem, ShareExceeded, Unavailable
from ingestion_api import metrics
from ingestion_api.settings import IngestionSettings
from ingestion_api.texts.repository import INTAKE, StoreResult, insert_texts
from ingestion_api.texts.submissions import NewText

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    row: NewText
    client: str
    stored: asyncio.Future[StoreResult]


class Intake:
    """The bounded queue between requests and the database, and the task that empties it."""

    def __init__(
        self, database: DatabaseSettings, settings: IngestionSettings, datasets: Datasets, client_share: float
    ) -> None:
        """`client_share`: the part of the queue that one client may fill."""
        self._database = database
        self._settings = settings
        self._datasets = datasets
        self._connection: psycopg.AsyncConnection | None = None
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(settings.waiting_limit)
        self._queued: Counter[str] = Counter()  # texts in the queue by client
        self._most_queued = max(1, math.ceil(settings.waiting_limit * client_share))
        metrics.WAITING_LIMIT.set(settings.waiting_limit)
        self._task = asyncio.create_task(self._commit_batches())

    async def store(self, row: NewText, client: str) -> StoreResult:
        """Store one text that a client sent; returns once it is committed.

        Raises:
            ShareExceeded: the client has filled its part of the queue.
            Unavailable: the queue is full, or the database is away or slow. The text may or may not be stored;
                sending it again is safe.
        """
        if self._queued[client] >= self._most_queued and not self._queue.full():
            raise ShareExceeded("single texts", self._most_queued)
        waiting = _Waiting(row, client, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise Unavailable("The intake is full. Send the text again.", code="intake_full") from None
        self._queued[client] += 1
        metrics.WAITING.set(self._queue.qsize())
        try:
            async with asyncio.timeout(self._settings.wait_seconds):
                return await waiting.stored
        except TimeoutError:
            raise Unavailable("Storing took too long. Send the text again.", code="database_slow") from None

    async def close(self) -> None:
        """Stop; waiting requests get 503."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._disconnect()
        while not self._queue.empty():
            _fail([self._queue.get_nowait()], Unavailable("The service is stopping.", code="stopping"))

    async def _commit_batches(self) -> None:
        while True:
            batch = await self._gather()
            try:
                with metrics.COMMIT_SECONDS.time():
                    stored = await self._commit([waiting.row for waiting in batch])
            except asyncio.CancelledError:
                _fail(batch, Unavailable("The service is stopping.", code="stopping"))
                raise
            except (psycopg.Error, OSError) as error:
                await self._disconnect()
                log.warning("intake.commit_failed", texts=len(batch), error=type(error).__name__)
                _fail(batch, Unavailable("The database is away.", code="database_unavailable"))
            except Exception:
                await self._disconnect()
                # Respond to these requests after any error, and continue with the next batch.
                log.exception("intake.commit_crashed", texts=len(batch))
                _fail(batch, Problem("Storing failed for a reason that is logged here."))
            else:
                _acknowledge(batch, stored)

    async def _gather(self) -> list[_Waiting]:
        """Wait for a submission; return all that have arrived, without those whose client has given up."""
        batch: list[_Waiting] = []
        while not batch:
            candidates = [await self._queue.get()]
            while len(candidates) < self._settings.commit_size and not self._queue.empty():
                candidates.append(self._queue.get_nowait())
            self._queued -= Counter(waiting.client for waiting in candidates)
            batch = [waiting for waiting in candidates if not waiting.stored.done()]
        metrics.WAITING.set(self._queue.qsize())
        return batch

    async def _commit(self, rows: list[NewText]) -> list[StoreResult]:
        metrics.COMMIT_TEXTS.observe(len(rows))
        if self._connection is not None:
            try:
                return await insert_texts(self._connection, rows, self._datasets)
            except psycopg.OperationalError:
                if not self._connection.broken:
                    raise
                # Postgres may have been restarted since the last batch. Storing twice changes nothing.
                await self._disconnect()
        self._connection = await connect(self._database, INTAKE)
        return await insert_texts(self._connection, rows, self._datasets)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _acknowledge(batch: list[_Waiting], stored: list[StoreResult]) -> None:
    for waiting, outcome in zip(batch, stored, strict=True):
        metrics.SUBMISSIONS.labels("duplicate" if outcome.duplicate else "accepted").inc()
        if not waiting.stored.done():
            waiting.stored.set_result(outcome)


def _fail(batch: list[_Waiting], problem: Problem) -> None:
    for waiting in batch:
        if not waiting.stored.done():
            waiting.stored.set_exception(problem)
