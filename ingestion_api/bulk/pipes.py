"""Named pipes between a request and the process that stores its rows: one for the body, one for reports."""

import asyncio
import os
import resource
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_process
import structlog

from core.web.problems import Problem
from ingestion_api.dependencies import BodyCut, BodyTimeout

log = structlog.get_logger()

_LENGTH = struct.Struct(">I")
_TIMED_OUT = 2**32 - 1
_CUT = 2**32 - 2
_BUFFER_BYTES = 256 * 1024


@contextmanager
def open_pipe() -> Iterator[tuple[Path, int]]:
    """Make a pipe that is gone when the block ends; gives its path for `receive_body`, its end for `send_body`."""
    with tempfile.TemporaryDirectory(prefix="ingestion-") as folder:
        path = Path(folder) / "body"
        os.mkfifo(path, 0o600)
        # For reading as well: to open it for writing alone would wait for the reader.
        end = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield path, end
        finally:
            os.close(end)


async def send_body(stream: AsyncIterator[bytes], end: int) -> None:
    """Pass a body on as fast as the other side takes it."""
    try:
        async for chunk in stream:
            if chunk:
                await _write(end, _LENGTH.pack(len(chunk)) + chunk)
        await _write(end, _LENGTH.pack(0))
    except BodyTimeout:
        await _write(end, _LENGTH.pack(_TIMED_OUT))
    except BodyCut:
        await _write(end, _LENGTH.pack(_CUT))
    except Exception:
        # The reader at the other end must not wait forever after any error.
        log.exception("body.not_passed_on")
        await _write(end, _LENGTH.pack(_CUT))


async def _write(end: int, frame: bytes) -> None:
    rest = memoryview(frame)
    while rest:
        try:
            rest = rest[os.write(end, rest) :]
        except BlockingIOError:
            await anyio.wait_writable(end)


def receive_body(path: Path, idle_seconds: float) -> Iterator[bytes]:
    """Yield the chunks of a body.

    Raises:
        BodyTimeout: the client sent nothing for `idle_seconds`.
        BodyCut: the client is gone.
    """
    # Without waiting for a writer, who may be gone; reads wait all the same.
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(end, True)
    with os.fdopen(end, "rb", _BUFFER_BYTES) as pipe:
        while length := _read_length(pipe.read(_LENGTH.size)):
            if length == _TIMED_OUT:
                raise BodyTimeout(idle_seconds)
            chunk = pipe.read(length)
            if len(chunk) < length:
                raise BodyCut
            yield chunk


def _read_length(head: bytes) -> int:
    length: int = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else _CUT
    if length == _CUT:
        raise BodyCut
    return length


_STEP, _WAIT_BEGINS, _WAIT_ENDS = b"s", b"(", b")"
_READ_BYTES = 4096

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

# Where this process reports to: it stores one body at a time.
_reports: int | None = None


class NoProgress(Problem):
    """The process that read a body made no progress and was ended."""

    status = 422
    code = "no_progress"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Reading the body made no progress for {seconds:g} seconds and was stopped. What was stored stays. "
            "Split the file, or write it in another format."
        )


async def run_watched(
    function: Callable[[*Arguments, Path], Result],
    *arguments: *Arguments,
    limiter: anyio.CapacityLimiter,
    seconds: float,
) -> Result:
    """Run a function in a process. Its last argument is the path that it reports to.

    Raises:
        NoProgress: it reported nothing for so long, and was ended.
    """
    with open_pipe() as (path, end):
        run = anyio.to_process.run_sync(function, *arguments, path, cancellable=True, limiter=limiter)
        result = await run_beside(run, _wait_until_stuck(end, seconds))
    if result is None:
        raise NoProgress(seconds)
    return result


async def run_beside(run: Awaitable[Result], watch: Awaitable[None]) -> Result | None:
    """Run until `run` ends, or `watch`, which returns None. The other one is cancelled, which ends a process."""
    running, watching = asyncio.ensure_future(run), asyncio.ensure_future(watch)
    try:
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
        return await (running if running.done() else watching)
    finally:
        running.cancel()
        watching.cancel()
        await asyncio.wait({running, watching})


async def _wait_until_stuck(end: int, seconds: float) -> None:
    """Return when no report has come for `seconds`."""
    waits = 1  # until the first report: a new process takes its time to start
    first = True
    while True:
        try:
            async with asyncio.timeout(None if waits else seconds):
                await anyio.wait_readable(end)
        except TimeoutError:
            return
        reports = os.read(end, _READ_BYTES)
        waits += reports.count(_WAIT_BEGINS) - reports.count(_WAIT_ENDS) - first
        first = False


@contextmanager
def reporting_to(path: Path) -> Iterator[None]:
    """Report to this path what happens in the block."""
    global _reports  # noqa: PLW0603 - this process does one thing at a time
    _reports = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        _report(_STEP)
        yield
    finally:
        os.close(_reports)
        _reports = None


def report_step() -> None:
    """Report progress."""
    _report(_STEP)


def report_each(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a body, and report progress with each of them."""
    for chunk in chunks:
        _report(_STEP)
        yield chunk


@contextmanager
def waiting_for_postgres() -> Iterator[None]:
    """Stop the clock while the block runs."""
    _report(_WAIT_BEGINS)
    try:
        yield
    finally:
        _report(_WAIT_ENDS)


def _report(report: bytes) -> None:
    if _reports is not None:
        with suppress(OSError):  # the other end is gone, and this process soon will be
            os.write(_reports, report)


def limit_memory(most_bytes: int) -> None:
    """Limit the memory of this process to `most_bytes`; an allocation beyond it raises MemoryError."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
