"""Carries a request's body from the event loop to the process that stores it, through a named pipe.

A frame is a length of four bytes and as many bytes; an empty one is the body's end. Lengths that no frame has tell
why the body is not whole. A pipe that just ends belonged to a process that is gone.
"""

import asyncio
import os
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import structlog
from starlette.requests import ClientDisconnect

from core.web.problems import Problem

log = structlog.get_logger()

_LENGTH = struct.Struct(">I")
_TIMED_OUT = 2**32 - 1
_CUT = 2**32 - 2
_BUFFER_BYTES = 256 * 1024


class BodyTimeout(Problem):
    """The client sends too slowly."""

    status = 408
    code = "body_timeout"


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


async def send_body(stream: AsyncIterator[bytes], end: int, idle_seconds: float) -> None:
    """Pass a body on as fast as the other side takes it."""
    try:
        while chunk := await _next_chunk(stream, idle_seconds):
            await _write(end, _LENGTH.pack(len(chunk)) + chunk)
        await _write(end, _LENGTH.pack(0))
    except TimeoutError:
        await _write(end, _LENGTH.pack(_TIMED_OUT))
    except ClientDisconnect:
        await _write(end, _LENGTH.pack(_CUT))
    except Exception:
        # Whatever it was: who reads the other end must not wait for ever.
        log.exception("body.not_passed_on")
        await _write(end, _LENGTH.pack(_CUT))


async def _next_chunk(stream: AsyncIterator[bytes], idle_seconds: float) -> bytes:
    async with asyncio.timeout(idle_seconds):
        async for chunk in stream:
            if chunk:
                return chunk
    return b""


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
        ClientDisconnect: the client is gone.
    """
    # Without waiting for a writer, who may be gone; reads wait all the same.
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(end, True)
    with os.fdopen(end, "rb", _BUFFER_BYTES) as pipe:
        while length := _read_length(pipe.read(_LENGTH.size)):
            if length == _TIMED_OUT:
                raise BodyTimeout(f"Nothing came for {idle_seconds:g} seconds.")
            chunk = pipe.read(length)
            if len(chunk) < length:
                raise ClientDisconnect
            yield chunk


def _read_length(head: bytes) -> int:
    length: int = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else _CUT
    if length == _CUT:
        raise ClientDisconnect
    return length
