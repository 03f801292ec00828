"""The change feed as clients follow it: pages, long polls, events, and the notifier that wakes waiting clients.

No transaction, cursor or thread is held while a client reads or waits. A page of many batches reads each batch in
a query of its own: an item that changes meanwhile has moved to a later version, and so to a later page.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import orjson
import structlog
from sse_starlette.event import ServerSentEvent

from core.web.problems import ShareExceeded, Unavailable
from core.web.rate_limits import Places, Turns, current_client
from core.web.server import server_is_stopping
from serving_api.changes import repository
from serving_api.changes.repository import Change, ChangePosition, after_version, find_page_end, list_changes
from serving_api.metrics import CHANGES_WAITING
from serving_api.replica.query_pool import ANY_NUMBER, Answer, AnswerCache, Connection, QueryPool, etag
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.texts.query import Mismatch

log = structlog.get_logger()

_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}

FEED_REPLACED = "The database is another one, and its versions too: begin anew, with an empty mirror and since=0."

PAGE_BATCH = 1000
_EVENTS_BATCH = 200
_TRIES = 30
# A client with a higher version than this process has read it from another process, which is ahead.
_AHEAD_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_STOP_LOOK_SECONDS = 0.25


class ChangeNotifier:
    """Wakes the clients that wait for a change of a dataset, with one query for each new version of the replica.

    For one event loop."""

    def __init__(self, pool: QueryPool, places: Places) -> None:
        """`places`: the number of clients that may wait."""
        self.is_stopping = False
        self._pool = pool
        self._places = places
        self._loop: asyncio.AbstractEventLoop | None = None
        self._replica_changed = asyncio.Event()
        self._versions_read = asyncio.Event()
        self._identity = ""
        self._read_up_to = 0
        self._newest: dict[str, int] = {}

    def notify(self) -> None:
        """Signal that the replica has a new version. Callable from any thread."""
        if self._loop and not self.is_stopping:
            self._loop.call_soon_threadsafe(self._replica_changed.set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the replica until the block ends."""
        self._loop = asyncio.get_running_loop()
        self._replica_changed.set()
        tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._watch_for_stop())]
        try:
            yield
        finally:
            self.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Wake all clients, since the server stops."""
        self.is_stopping = True
        self._wake()

    @contextlib.contextmanager
    def waiting(self, kind: str) -> Iterator[None]:
        """Hold one of the places while a client waits.

        Raises:
            ShareExceeded: this client has its share of the places.
            Unavailable: all places are taken, or the server is stopping.
        """
        client = current_client()
        full = Unavailable("Too many clients wait for changes.", code="too_many_waiting", retry_after_seconds=5)
        if self.is_stopping:
            raise full
        try:
            self._places.take(client)
        except Unavailable as error:
            raise full from error
        CHANGES_WAITING.labels(kind).inc()
        try:
            yield
        finally:
            self._places.give_back(client)
            CHANGES_WAITING.labels(kind).dec()

    async def wait_beyond(self, dataset: str, version: int, seconds: float | None = None) -> int:
        """Wait until the dataset has a newer version, the time is over, or the server is stopping.

        Returns the dataset's newest version.
        """
        identity = self._identity
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._newest.get(dataset, 0) <= version and self._identity == identity:
                    if self.is_stopping:
                        break
                    await self._versions_read.wait()
                    # Nothing had been read when the wait began: that is not another database.
                    identity = identity or self._identity
        return self._newest.get(dataset, 0)

    async def _follow(self) -> None:
        while True:
            await self._replica_changed.wait()
            self._replica_changed.clear()
            try:
                await self._pool.run(self._read)
            except (Unavailable, duckdb.Error) as error:
                if isinstance(error, duckdb.Error):  # else the replica is being built, or the query pool is full
                    log.warning("changes.read_failed", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                self._replica_changed.set()
            self._wake()

    def _read(self, cursor: Connection, point: Point) -> None:
        if point.identity != self._identity or point.version < self._read_up_to:
            self._identity, self._read_up_to, self._newest = point.identity, 0, {}
        self._newest |= repository.newest_versions(cursor, self._read_up_to)
        self._read_up_to = point.version

    def _wake(self) -> None:
        done, self._versions_read = self._versions_read, asyncio.Event()
        done.set()

    async def _watch_for_stop(self) -> None:
        # Uvicorn waits for running responses before it signals the shutdown to the application.
        while not server_is_stopping():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(_STOP_LOOK_SECONDS)
        self.stop()


@dataclass(frozen=True)
class ChangesQuery:
    """Selects changes."""

    dataset: str
    since: int
    limit: int
    feed: str | None


class ChangesResult(NamedTuple):
    """A page. If it is too long to be kept in memory, its body continues with `rest`."""

    answer: Answer
    is_empty: bool
    rest: AsyncIterator[bytes] | None


class _Batch(NamedTuple):
    point: Point
    changes: list[Change]
    has_more: bool
    end: int


class Changes:
    """Makes pages and events of changes."""

    def __init__(
        self, replica: Replica, pool: QueryPool, cache: AnswerCache, notifier: ChangeNotifier, readers: int
    ) -> None:
        self.notifier = notifier
        self._replica = replica
        self._pool = pool
        self._cache = cache
        # New labels wake all waiting clients at the same time: leave threads for others, and let most of them find
        # the response in the cache.
        self._turns = Turns("reads of changes", readers, ANY_NUMBER, 1)

    def check_feed(self, feed: str | None) -> None:
        """Refuse versions of another database.

        Raises:
            Mismatch: the database is not the one of `feed`.
            Unavailable: nothing is loaded yet.
        """
        if feed not in {None, feed_of(self._replica.loaded().identity)}:
            raise Mismatch("feed", "feed_replaced", FEED_REPLACED)

    async def page(self, query: ChangesQuery) -> ChangesResult:
        """Return the changes after `query.since`."""
        key = f"changes {query}".encode()
        point = self._replica.loaded().point
        answer = self._cache.get_or_none(point, key)
        if answer:
            return ChangesResult(answer, is_empty=False, rest=None)
        batch = _Batch(point, [], has_more=False, end=query.since)
        if query.since < point.version:
            batch = await self._pool.run(lambda cursor, point: _first_batch(cursor, point, query))
        body = b'{"items":[' + b",".join(map(render, batch.changes))
        body += b"" if batch.has_more else _tail(batch.end, batch.point)
        answer = Answer(body, batch.point, etag(batch.point, key), key, query.dataset)
        if batch.has_more:
            return ChangesResult(answer, is_empty=False, rest=self._rest(query, batch))
        if batch.changes:
            self._cache.put(key, answer)
        return ChangesResult(answer, is_empty=not batch.changes, rest=None)

    async def wait(self, query: ChangesQuery, seconds: float) -> None:
        """Wait at most `seconds` for a change after `query.since`."""
        if query.since > self._replica.loaded().cursor:
            seconds = min(seconds, _AHEAD_SECONDS)
        await self.notifier.wait_beyond(query.dataset, query.since, seconds)

    async def events(self, query: ChangesQuery) -> AsyncIterator[bytes]:
        """Yield the changes after `query.since`, then new ones as they come.

        Ends when the server stops, and when the database becomes another one.
        """
        state = self._replica.loaded()
        position, heard = after_version(query.since), 0
        about = {"feed": feed_of(state.identity), "version": state.version}
        yield ServerSentEvent(
            orjson.dumps(about).decode(), event="feed", retry=int(_RETRY_SECONDS * 1000)
        ).encode()
        while not self.notifier.is_stopping:
            batch = await self._read(query, position, None, _EVENTS_BATCH)
            if batch.point.identity != state.identity:
                return
            if batch.changes:
                yield b"".join(map(_event, batch.changes))
                position = _position_after(batch.changes[-1])
            if not batch.has_more:
                heard = await self.notifier.wait_beyond(query.dataset, max(position.version, heard))

    async def _rest(self, query: ChangesQuery, batch: _Batch) -> AsyncIterator[bytes]:
        first = batch
        while batch.has_more:
            batch = await self._read(query, _position_after(batch.changes[-1]), first.end, PAGE_BATCH)
            if batch.point.identity != first.point.identity:
                raise Unavailable("The database was replaced while a page was being sent.", code="feed_replaced")
            if batch.changes:
                yield b"," + b",".join(map(render, batch.changes))
        yield _tail(first.end, first.point)

    async def _read(self, query: ChangesQuery, after: ChangePosition, end: int | None, count: int) -> _Batch:
        """Read another batch; retry while the pool is full, since the response has begun."""
        tries = 0
        while True:
            try:
                async with self._turns.turn(current_client()):
                    return await self._pool.run(
                        lambda cursor, point: _batch(cursor, point, query.dataset, after, end, count)
                    )
            except (ShareExceeded, Unavailable):
                tries += 1
                if tries > _TRIES:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)


def feed_of(identity: str) -> str:
    """Return the public name of a database's identity."""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def render(change: Change) -> bytes:
    """Return the JSON object of a change."""
    row = change.row
    if change.is_delete:
        return orjson.dumps(
            {"op": "delete", "version": row["version"], "id": row["id"], "dataset": row["dataset"]}
        )
    return b'{"op":"upsert","version":%d,%b' % (row["version"], row["document"][1:].encode())


def _event(change: Change) -> bytes:
    # An id means that everything up to it was sent, so only the last change of a version has one.
    version = str(change.position.version) if change.ends_version else None
    kind = "delete" if change.is_delete else "upsert"
    return ServerSentEvent(_on_one_line(render(change).decode()), event=kind, id=version).encode()


def _on_one_line(json: str) -> str:
    """Escape characters that many clients wrongly read as line ends."""
    return json if json.isascii() else json.translate(_LINE_ENDS)


def _first_batch(cursor: Connection, point: Point, query: ChangesQuery) -> _Batch:
    end = find_page_end(cursor, query.dataset, query.since, query.limit)
    if end is None:
        return _Batch(point, [], has_more=False, end=query.since)
    return _batch(cursor, point, query.dataset, after_version(query.since), end, PAGE_BATCH)


def _batch(
    cursor: Connection,
    point: Point,
    dataset: str,
    after: ChangePosition,
    end: int | None,
    count: int,
) -> _Batch:
    changes, has_more = list_changes(cursor, dataset, after, end, count)
    return _Batch(point, changes, has_more, after.version if end is None else end)


def _position_after(change: Change) -> ChangePosition:
    return after_version(change.position.version) if change.ends_version else change.position


def _tail(end: int, point: Point) -> bytes:
    return b'],"next":%d,"feed":"%b"}' % (end, feed_of(point.identity).encode())
