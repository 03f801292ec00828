"""Sends an open file over HTTP: whole or in ranges, with preconditions, in constant memory.

Snapshots may be in S3, and an export's file may be removed while it is read, so the response reads an open file.
Starlette's FileResponse reads paths only, and has neither If-Match, 304, send timeouts nor our problems.
"""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO, NamedTuple

import structlog
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from core.web.openapi import Responses, header, refusals
from core.web.problems import Malformed, Problem
from core.web.server import abort_connection
from serving_api.dependencies import is_held
from serving_api.replica.query_pool import FairThreads

log = structlog.get_logger()

# At most 19 digits: more than the size of any file has.
_RANGE = re.compile(r"[ \t]*bytes=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)
# If-Match and If-Range compare strong tags only: a weak one does not identify bytes.
_STRONG_TAG = re.compile(r'(?:^|,)[ \t]*("[^"]*")')

# One piece for each client is in memory, and the server's own buffer.
LOCAL_PIECE_BYTES = 256 * 2**10
REMOTE_PIECE_BYTES = 2 * 2**20  # each is one request to the storage


class ByteRange(NamedTuple):
    """Bytes of a file from `start` up to, but not including, `end`."""

    start: int
    end: int


class RangeNotSatisfiable(Problem):
    """The range begins after the end of the file, or is empty."""

    status = 416
    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})


def requested_range(header: str | None, size: int) -> ByteRange | None:
    """Return the range of a Range header; None for the whole file.

    Several ranges, units other than bytes, and malformed headers are ignored, as RFC 9110 allows.

    Raises:
        RangeNotSatisfiable: the range begins after the end, or is empty.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise RangeNotSatisfiable(size)
    return ByteRange(start, end)


class PreconditionFailed(Problem):
    """If-Match names another version of the file."""

    status = 412
    code = "precondition_failed"

    def __init__(self, etag: str) -> None:
        super().__init__(
            f"If-Match names another version of the file; its ETag is {etag}.", headers={"ETag": etag}
        )


def describe_file(
    media_type: str, schema: dict[str, Any], example: Any, headers: dict[str, Any], *problems: Problem
) -> Responses:
    """Describe a file in OpenAPI. `headers` include the ETag and are sent with 304 too."""
    content = {media_type: {"schema": schema, "example": example}}
    headers = headers | {"Accept-Ranges": header("The file is also sent in parts.", "bytes")}
    sent = headers | {
        "Content-Disposition": header("A name for the file.", 'attachment; filename="toxicity-91342.parquet"')
    }
    part = sent | {"Content-Range": header("The part, and the size of the file.", "bytes 0-1023/131072")}
    return {
        200: {"description": "The file.", "content": content, "headers": sent},
        206: {"description": "The part that Range requests.", "content": content, "headers": part},
        304: {"description": "The client holds it already.", "headers": headers},
        **refusals(
            Malformed("The query string is not UTF-8.", code="malformed_query"),
            PreconditionFailed(headers["ETag"]["example"]),
            RangeNotSatisfiable(131_072),
            *problems,
            scope="read",
        ),
    }


class ServedFile(NamedTuple):
    """The headers of a file, without those of ranges."""

    size: int  # bytes
    etag: str  # strong, in quotes
    media_type: str
    disposition: str  # Content-Disposition
    headers: dict[str, str]  # further ones, sent with 304 too


class Sending(NamedTuple):
    """How a file is sent."""

    threads: FairThreads  # open and read the file
    piece_bytes: int = LOCAL_PIECE_BYTES
    idle_seconds: float | None = None  # a client that takes no piece in this time is disconnected
    on_end: Callable[[str, int], None] = lambda result, sent: None  # whole, left, idle or failed; bytes sent
    reading: Callable[[], AbstractContextManager[None]] = nullcontext  # turns a failed read into a Problem


def strong_tags(header: str | None) -> list[str]:
    """Return the strong entity tags, in quotes, of an If-Match, If-None-Match or If-Range header."""
    return _STRONG_TAG.findall(header or "")


async def send_file(
    request: Request, file: ServedFile, source: BinaryIO | Callable[[], BinaryIO], sending: Sending
) -> Response:
    """Return the response: the whole file, the requested range, 304, or the headers for HEAD.

    A callable `source` is opened before the status is sent, so its errors become problem responses.

    Raises:
        PreconditionFailed: If-Match names other versions.
        RangeNotSatisfiable: the range is outside of the file.
    """
    headers = {"ETag": file.etag, "Accept-Ranges": "bytes"} | file.headers
    wanted = request.headers.get("if-match")
    if wanted is not None and wanted.strip() != "*" and file.etag not in strong_tags(wanted):
        raise PreconditionFailed(file.etag)
    if is_held(request, file.etag):
        return Response(status_code=304, headers=headers)
    range_ = _range_of(request, file)
    start, end = range_ or (0, file.size)
    headers |= {
        "Content-Type": file.media_type,
        "Content-Length": str(end - start),
        "Content-Disposition": file.disposition,
    }
    if range_:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    if request.method == "HEAD":
        return Response(status_code=200, headers=headers)
    opened = await sending.threads.run(source) if callable(source) else source
    return _OpenFileResponse(opened, ByteRange(start, end), 206 if range_ else 200, headers, sending)


class _OpenFileResponse(StreamingResponse):
    """Streams a range of an open file, then closes the file."""

    def __init__(
        self, source: BinaryIO, range_: ByteRange, status: int, headers: dict[str, str], sending: Sending
    ) -> None:
        super().__init__(pieces(source, range_, sending), status, headers)
        self._source = source
        self._sending = sending
        self._left_bytes = self._bytes = range_.end - range_.start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the range. After the status is sent, only a cut connection can report a failure."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._sending.idle_seconds):
                await send(message)
            self._left_bytes -= len(message.get("body", b""))

        result = "left"
        try:
            await super().__call__(scope, receive, send_in_time)
            if not self._left_bytes:
                result = "whole"
        except* TimeoutError:
            result = "idle"
            abort_connection(receive)
        except* (Problem, EOFError) as errors:
            result = "failed"
            log.warning("file.download_cut", path=scope["path"], error=str(errors.exceptions[0]))
            abort_connection(receive)
        finally:
            self._source.close()
            self._sending.on_end(result, self._bytes - self._left_bytes)


def _range_of(request: Request, file: ServedFile) -> ByteRange | None:
    if request.method != "GET":
        return None  # RFC 9110 defines ranges for GET only
    condition = request.headers.get("if-range")
    # A date is not a strong validator: a file may change twice in a second.
    if condition is not None and condition.strip() != file.etag:
        return None
    return requested_range(request.headers.get("range"), file.size)


async def pieces(source: BinaryIO, range_: ByteRange, sending: Sending) -> AsyncIterator[bytes]:
    """Yield the bytes of a range.

    Raises:
        EOFError: the file ends before the range does.
    """

    def read() -> bytes:
        with sending.reading():
            return source.read(min(left, sending.piece_bytes))

    source.seek(range_.start)  # reads nothing yet
    left = range_.end - range_.start
    in_memory = isinstance(source, io.BytesIO)  # a thread switch would take longer than the read
    while left:
        piece = read() if in_memory else await sending.threads.run(read)
        if not piece:
            raise EOFError("the file is shorter than announced")
        left -= len(piece)
        yield piece
