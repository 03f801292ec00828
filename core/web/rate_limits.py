"""Rate limits, and bounded resources that clients share fairly."""

import asyncio
import contextlib
import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

from core.settings import Limit
from core.web.problems import ShareExceeded, Unavailable

Headers = tuple[tuple[bytes, bytes], ...]

_POLICY = "key"  # the name of the only policy


class Bucket:
    """The rest of a limit (a token bucket). Its only state is the time at which it will be full again."""

    __slots__ = ("_capacity_seconds", "_full_at", "_policy", "_seconds_each", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._seconds_each = 1 / limit.requests_per_second
        self._capacity_seconds = limit.burst * self._seconds_each
        self._full_at = 0.0
        window = math.ceil(self._capacity_seconds)
        self._policy = b'"%b";q=%d;w=%d' % (_POLICY.encode(), limit.burst, window)

    def take(self, now: float | None = None) -> float:
        """Take one request and return 0; or take nothing, and return the seconds to wait.

        `now`: seconds of the monotonic clock.
        """
        now = time.monotonic() if now is None else now
        full_at = max(self._full_at, now) + self._seconds_each
        # Floats are not exact: ignore a billionth of a second.
        wait = full_at - now - self._capacity_seconds
        if wait > 1e-9:
            return wait
        self._full_at = full_at
        return 0.0

    def headers(self, now: float | None = None) -> Headers:
        """Return `RateLimit-Policy` and `RateLimit`: requests left, and seconds until the bucket is full."""
        now = time.monotonic() if now is None else now
        until_full = max(0.0, self._full_at - now)
        left = int((self._capacity_seconds - until_full) / self._seconds_each + 1e-6)
        state = b'"%b";r=%d;t=%d' % (_POLICY.encode(), left, math.ceil(until_full))
        return (b"ratelimit-policy", self._policy), (b"ratelimit", state)


_request: ContextVar[Any] = ContextVar("request", default=None)

# The client of a program's own work.
_PROGRAM = "program"


def begin_request(scope: Any) -> None:
    """Set the request, by its ASGI scope, that the current task works for."""
    _request.set(scope)


def current_client() -> str:
    """Return the client that the current task works for: the id of its key, its address, or the program itself."""
    scope = _request.get()
    if scope is None:
        return _PROGRAM
    key = scope.get("api_key")
    if key is not None:
        return str(key.id)
    client = scope.get("client")
    return client[0] if client else "unknown"


class Places:
    """A limit of concurrent work, of which one client gets at most a share. May be used from any thread."""

    def __init__(self, what: str, places: int, share: float, code: str = "too_busy") -> None:
        """`what` names the work in problems, as "exports"; `share` is the part of all places for one client.

        `code` is that of the problem if all places are taken.
        """
        self._what = what
        self._code = code
        self._places = places
        self._places_each = max(1, math.ceil(places * share))
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def hold(self, client: str) -> Iterator[None]:
        """Hold a place while the block runs; raises as `take`."""
        self.take(client)
        try:
            yield
        finally:
            self.give_back(client)

    def take(self, client: str) -> None:
        """Take a place; `give_back` frees it.

        Raises:
            ShareExceeded: the client holds its share.
            Unavailable: all places are taken.
        """
        with self._lock:
            if self._held[client] >= self._places_each:
                raise ShareExceeded(self._what, self._places_each)
            if self._held.total() >= self._places:
                raise Unavailable(f"Too many {self._what} are under way.", code=self._code, retry_after_seconds=5)
            self._held[client] += 1

    def give_back(self, client: str) -> None:
        """Free a place that the client holds."""
        with self._lock:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]


class Turns:
    """A queue of short work: some requests run, others wait. Clients take turns, however many requests each sent.

    For one event loop. The queue is round-robin over clients and first-in, first-out within one client.
    """

    def __init__(self, what: str, running: int, waiting: int, share: float) -> None:
        """`running` and `waiting` bound the work of all clients, `share` the part of `waiting` for one client."""
        self._what = what
        self._free = running
        self._waiting = waiting
        self._waiting_each = max(1, math.ceil(waiting * share))
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it while the block runs; raises as `enter`."""
        await self.enter(client)
        try:
            yield
        finally:
            self.leave()

    async def enter(self, client: str) -> None:
        """Wait for a turn; `leave` ends it.

        Raises:
            ShareExceeded: the client has its share of the queue.
            Unavailable: the queue is full.
        """
        if self._free and not self._queues:
            self._free -= 1
            return
        queue = self._queues.get(client, deque())
        if sum(map(len, self._queues.values())) >= self._waiting:
            raise Unavailable(f"Too many {self._what} are waiting.", code="too_busy")
        if len(queue) >= self._waiting_each:
            raise ShareExceeded(self._what, self._waiting_each)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._queues[client] = queue
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the turn came as the client left
            else:
                self._forget(client, turn)
            raise

    def leave(self) -> None:
        """End a turn; the next one is that of the client whose last turn is the longest ago."""
        while self._queues:
            client, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._queues[client] = queue
            if not turn.done():  # else it was cancelled, and its task has not run yet
                turn.set_result(None)
                return
        self._free += 1

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(client)
        if queue and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queues[client]
