"""Sends a snapshot's files, whole or in ranges."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import BinaryIO, NamedTuple

import structlog
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from core.web.problems import Problem
from core.web.server import abort_connection
from serving_api.replica.fair_threads import FairThreads
from serving_api.responses import is_held
from serving_api.snapshots.storage import Storage, reaching_storage

# Numbers longer than any file's are those of somebody who tries things out.
_RANGE = re.compile(r"[ \t]*bytes=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)


class Part(NamedTuple):
    """Bytes of a file: from `start` up to, not with, `end`."""

    start: int
    end: int


class NotSatisfiable(Exception):
    """There is nothing of the file where the client asks for it."""


def requested_part(header: str | None, size: int) -> Part | None:
    """Return the part that a Range header asks for; None: all of it.

    Several ranges at once, other units and what cannot be read are disregarded, as a server may do.

    Raises:
        NotSatisfiable: the range begins behind the end, or is empty.
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
            return None  # not a range at all
    if start >= end:
        raise NotSatisfiable
    return Part(start, end)


log = structlog.get_logger()

# A year: as long as HTTP has a word for. Private, for it needs a key.
_FOR_EVER = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"

# A client has one piece in memory, beside what the server holds back for it.
_PIECE_BYTES = 256 * 2**10
_REMOTE_PIECE_BYTES = 2 * 2**20  # each is a request of its own


class RangeNotSatisfiable(Problem):
    """There is nothing of the file where the client asks for it."""

    status = 416
    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})


class ServedFile(NamedTuple):
    """A file of a snapshot as clients see it."""

    snapshot: str
    path: str
    size: int
    sha256: str
    media_type: str
    file_name: str
    changed_at: datetime
    is_for_ever: bool


async def send_file(request: Request, storage: Storage, threads: FairThreads, file: ServedFile) -> Response:
    """Return the answer: all of the file, the part that is asked for, or that the client holds it.

    The threads read it.

    Raises:
        NotFound: it is gone.
        RangeNotSatisfiable: there is nothing of it where the client asks.
        Unavailable: the storage does not answer.
    """
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Last-Modified": format_datetime(file.changed_at.astimezone(UTC), usegmt=True),
        "Cache-Control": _FOR_EVER if file.is_for_ever else _ASK_AGAIN,
        "Accept-Ranges": "bytes",
    }
    if is_held(request, etag):
        return Response(status_code=304, headers=headers)
    try:
        part = _part(request, etag, file.size)
    except NotSatisfiable as error:
        raise RangeNotSatisfiable(file.size) from error
    start, end = part or (0, file.size)
    headers |= {
        "Content-Type": file.media_type,
        "Content-Length": str(end - start),
        "Content-Disposition": f'attachment; filename="{file.file_name}"',
    }
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    piece_bytes = _PIECE_BYTES if storage.is_local else _REMOTE_PIECE_BYTES
    # Opened before the status is sent: what is not there is a 404.
    source = await threads.run(lambda: _open(storage, file))
    body = pieces(source, Part(start, end), piece_bytes, threads)
    return _FileResponse(source, body, status, headers)


class _FileResponse(StreamingResponse):
    """Streams a part of an open file, and closes it whether or not anything was sent."""

    def __init__(self, source: BinaryIO, body: AsyncIterator[bytes], status: int, headers: dict[str, str]) -> None:
        super().__init__(body, status, headers)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; when it cannot be read to its end, cut the connection, for the answer has begun."""
        try:
            await super().__call__(scope, receive, send)
        except* (Problem, EOFError) as errors:
            log.warning("snapshot.download_cut", path=scope["path"], error=str(errors.exceptions[0]))
            abort_connection(receive)
        finally:
            self._source.close()


def _part(request: Request, etag: str, size: int) -> Part | None:
    if request.method != "GET":
        return None  # no other method has ranges
    condition = request.headers.get("if-range")
    # A date is no strong validator: files may change twice in a second.
    if condition is not None and condition.strip() != etag:
        return None
    return requested_part(request.headers.get("range"), size)


def _open(storage: Storage, file: ServedFile) -> BinaryIO:
    # Without fsspec's reading ahead: the pieces are large, and one follows the other.
    return storage.open(file.snapshot, file.path, **({} if storage.is_local else {"cache_type": "none"}))


async def pieces(source: BinaryIO, part: Part, piece_bytes: int, threads: FairThreads) -> AsyncIterator[bytes]:
    """Yield the bytes of a part; a file that ends before it should cuts the connection."""
    source.seek(part.start)  # reads nothing yet
    left = part.end - part.start
    while left:
        piece = await threads.run(partial(_read, source, min(left, piece_bytes)))
        left -= len(piece)
        yield piece


def _read(source: BinaryIO, count: int) -> bytes:
    with reaching_storage():
        piece = source.read(count)
    if not piece:
        raise EOFError("the file is shorter than its snapshot says")
    return piece
