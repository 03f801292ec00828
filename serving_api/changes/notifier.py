"""Tells who waits for changes that there are some, without a query for each of them."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator

import duckdb
import structlog
from sse_starlette.sse import AppStatus

from core.web.problems import Unavailable
from core.web.rate_limits import Places, current_client
from serving_api.changes import repository
from serving_api.metrics import CHANGES_WAITING
from serving_api.replica.query_pool import QueryPool
from serving_api.texts.repository import Point

log = structlog.get_logger()

_RETRY_SECONDS = 1.0
_STOP_LOOK_SECONDS = 0.25


class News:
    """The newest version of each dataset, and who waits for newer ones. For one event loop."""

    def __init__(self, pool: QueryPool, places: Places) -> None:
        """`places`: of clients that wait."""
        self.is_stopping = False
        self._pool = pool
        self._places = places
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()
        self._heard = asyncio.Event()
        self._identity = ""
        self._read_up_to = 0
        self._newest: dict[str, int] = {}

    def ring(self) -> None:
        """Say, from any thread, that the replica has a new version."""
        if self._loop and not self.is_stopping:
            self._loop.call_soon_threadsafe(self._rung.set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the replica until the block ends."""
        self._loop = asyncio.get_running_loop()
        self._rung.set()
        tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._watch_for_stop())]
        try:
            yield
        finally:
            self.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Let all who wait go."""
        self.is_stopping = True
        self._wake()

    @contextlib.contextmanager
    def waiting(self, kind: str) -> Iterator[None]:
        """Hold a place for one client that waits.

        Raises:
            ShareExceeded: the client waits as often as one may.
            Unavailable: there are as many as may be, or the server is being stopped.
        """
        client = current_client()
        self._take_place(client)
        CHANGES_WAITING.labels(kind).inc()
        try:
            yield
        finally:
            self._places.give_back(client)
            CHANGES_WAITING.labels(kind).dec()

    def _take_place(self, client: str) -> None:
        full = Unavailable("Too many clients wait for changes.", code="too_many_waiting", retry_after_seconds=5)
        if self.is_stopping:
            raise full
        try:
            self._places.take(client)
        except Unavailable as error:
            raise full from error

    async def wait_beyond(self, dataset: str, version: int, seconds: float | None = None) -> int:
        """Wait until the dataset has a newer version, the time is over, or the server is being stopped.

        Returns the dataset's newest version.
        """
        identity = self._identity
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._newest.get(dataset, 0) <= version and self._identity == identity:
                    if self.is_stopping:
                        break
                    await self._heard.wait()
                    # Nothing had been read when the waiting began: that is no other database.
                    identity = identity or self._identity
        return self._newest.get(dataset, 0)

    async def _follow(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            try:
                await self._pool.run(self._read)
            except Unavailable:  # the replica is being built, or everybody asks at once
                await asyncio.sleep(_RETRY_SECONDS)
                self._rung.set()
            except duckdb.Error as error:
                log.warning("changes.news_failed", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                self._rung.set()
            self._wake()

    def _read(self, cursor: duckdb.DuckDBPyConnection, point: Point) -> None:
        if point.identity != self._identity or point.version < self._read_up_to:
            self._identity, self._read_up_to, self._newest = point.identity, 0, {}
        self._newest |= repository.newest_versions(cursor, self._read_up_to)
        self._read_up_to = point.version

    def _wake(self) -> None:
        heard, self._heard = self._heard, asyncio.Event()
        heard.set()

    async def _watch_for_stop(self) -> None:
        # The server waits for the answers under way before it tells the application that it stops.
        while not _server_is_stopping():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_STOP_LOOK_SECONDS)
        self.stop()


def _server_is_stopping() -> bool:
    """Whether uvicorn was told to stop: sse-starlette notes it, or else the server itself that handles signals."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return AppStatus.should_exit or bool(getattr(server, "should_exit", False))
