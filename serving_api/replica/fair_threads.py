"""Threads that clients share fairly: a request waits for about one request per thread of any other client."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from core.web.rate_limits import Turns, current_client

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
        """Return what `work` returns, in a thread; raises as `begin`."""
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
