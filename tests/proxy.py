"""A TCP proxy that hurts the calls going through it: it drops, delays and cuts them, as a network does."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Fault:
    """What becomes of one connection."""

    delay_seconds: float = 0  # before the request goes on; it does so also when the client has given up
    request_bytes: int | None = None  # so much of the request arrives, then the connection is cut; None: all
    answer_bytes: int | None = None  # so much of the answer arrives, then the connection is cut; None: all


PASS = Fault()
DROP = Fault(request_bytes=0)
LOSE_ANSWER = Fault(answer_bytes=0)  # cut when its first byte is there: what was asked for is done

# Gets the first bytes of a request, and decides what becomes of its connection. Runs in the proxy's thread.
Rule = Callable[[bytes], Fault]


class Proxy:
    """A running proxy; `rule` may be set at any time, for the connections from then on."""

    def __init__(self, target_port: int) -> None:
        self.rule: Rule = lambda _head: PASS
        self.port = 0
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, ready: threading.Event, stopping: asyncio.Event) -> None:
        """Accept connections until stopped."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stopping.wait()
        server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The loop itself holds its tasks weakly: one of two frozen ends is collected.
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Every end of a connection looks the same from here: one side closed it.
        with suppress(OSError):
            try:
                await self._relay_call(reader, writer)
            finally:
                writer.transport.abort()

    async def _relay_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(_CHUNK_BYTES)
        fault = self.rule(head) if head else DROP
        if fault.request_bytes == 0:
            return
        await asyncio.sleep(fault.delay_seconds)
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            answered = asyncio.Event()
            answer = asyncio.ensure_future(_pass_answer(target_reader, writer, fault.answer_bytes, answered))
            request = asyncio.ensure_future(_pass_request(head, reader, target_writer, fault.request_bytes))
            await asyncio.wait({answer, request}, return_when=asyncio.FIRST_COMPLETED)
            # A client that went away does not take its request back; one that has its answer is done.
            if fault.request_bytes is None and not answer.done():
                await answered.wait()
            for task in (answer, request):
                task.cancel()
            await asyncio.gather(answer, request, return_exceptions=True)
        finally:
            target_writer.transport.abort()


async def _pass_request(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None
) -> None:
    chunk, left = head, limit
    while chunk:
        writer.write(chunk if left is None else chunk[:left])
        await writer.drain()
        if left is not None and (left := left - len(chunk)) <= 0:
            return
        chunk = await reader.read(_CHUNK_BYTES)


async def _pass_answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None, answered: asyncio.Event
) -> None:
    left = limit
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            if left is not None and left < len(chunk):
                writer.write(chunk[:left])
                return
            writer.write(chunk)
            await writer.drain()
            answered.set()
            left = None if left is None else left - len(chunk)
    finally:
        answered.set()


@contextmanager
def running_proxy(target_port: int) -> Iterator[Proxy]:
    """Run a proxy to a port of this machine until the block ends."""
    proxy, ready, loop = Proxy(target_port), threading.Event(), asyncio.new_event_loop()
    stopping = asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(ready, stopping))  # its end cancels the connections that are left

    thread = threading.Thread(target=run, name="proxy", daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
