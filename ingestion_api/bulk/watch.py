"""Watches a process that stores rows: it is ended when it makes no progress, and may take only so much memory.

The process reports each step through a named pipe. While it waits for Postgres, whose statements have time limits
of their own, the clock stands still.
"""

import asyncio
import os
import resource
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio

from core.web.problems import Problem
from ingestion_api.bulk.body_pipe import open_pipe

_STEP, _WAIT_BEGINS, _WAIT_ENDS = b"s", b"(", b")"
_READ_BYTES = 4096

Result = TypeVar("Result")

# Where this process reports to: it stores one body at a time.
_reports: int | None = None


class NoProgress(Problem):
    """The process that read a body was ended: it did not go on."""

    status = 422
    code = "no_progress"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Reading the body made no progress for {seconds:g} seconds and was stopped. What was stored stays. "
            "Split the file, or write it in another format."
        )


class OutOfMemory(Problem):
    """To read a body takes more memory than a process may have."""

    status = 413
    code = "out_of_memory"

    def __init__(self) -> None:
        super().__init__(
            "Reading the body takes more memory than allowed. What was stored stays. "
            "Write shorter row groups and pages, or shorter rows."
        )


async def run_watched(run: Callable[[Path], Coroutine[Any, Any, Result]], seconds: float) -> Result:
    """Run a process that reports to the path it is given; cancelling `run` must end it.

    Raises:
        NoProgress: it reported nothing for so long, and was ended.
    """
    with open_pipe() as (path, end):
        running = asyncio.ensure_future(run(path))
        stuck = asyncio.create_task(_wait_until_stuck(end, seconds))
        try:
            await asyncio.wait({running, stuck}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                stuck.result()  # raises the error, if one ended the watch
                raise NoProgress(seconds)
            return await running
        finally:
            running.cancel()
            stuck.cancel()
            await asyncio.wait({running, stuck})


async def _wait_until_stuck(end: int, seconds: float) -> None:
    """Return when no report has come for so long."""
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
    """Say that this process goes on."""
    _report(_STEP)


def report_each(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Say with each chunk of a body that this process goes on."""
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
    """Let this process hold at most so many bytes; what goes beyond fails with MemoryError."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
