"""Sends an export: no faster than the client takes it, and so that a client can tell whether it is whole."""

import asyncio
import time
from collections.abc import Iterator

import duckdb
import structlog
from fastapi import Response
from starlette.types import Receive, Scope, Send

from core.web.problems import Problem, Unavailable
from core.web.server import abort_connection
from serving_api.exports.formats import Chunk, Format
from serving_api.exports.repository import ExportQuery
from serving_api.exports.service import Export
from serving_api.metrics import EXPORT_BYTES, EXPORTS
from serving_api.replica.replica import Replica
from serving_api.responses import client_gone, replica_headers
from serving_api.texts.repository import Point
from serving_api.texts.service import etag

log = structlog.get_logger()

# As much as the server keeps for a client before it waits for it. A client must take so much in the idle time.
_PIECE_BYTES = 64 * 1024


class ExportResponse(Response):
    """The answer that sends an export."""

    def __init__(self, export: Export, replica: Replica, *, idle_seconds: float, chunk_seconds: float) -> None:
        super().__init__()
        self._export = export
        self._replica = replica
        self._idle_seconds = idle_seconds
        self._chunk_seconds = chunk_seconds
        self._has_begun = False
        self._sent_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, or as much as the client wants.

        Raises:
            Unavailable: there is nothing to send; nothing was sent.
        """
        started = time.perf_counter()
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(client_gone(receive))
        result = "left"
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                result = "failed"
                result = self._result(sending, receive)
        finally:
            sending.cancel()
            leaving.cancel()
            self._export.end()
            self._observe(result, time.perf_counter() - started)

    async def _send(self, send: Send) -> None:
        upcoming = self._export.next()
        try:
            chunk = await self._made(upcoming)
            await send({"type": "http.response.start", "status": 200, "headers": self._raw_headers()})
            self._has_begun = True
            while chunk is not None:
                upcoming = self._export.next()  # is made while the client takes this one
                await self._send_chunk(send, chunk)
                chunk = await self._made(upcoming)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            upcoming.cancel()

    async def _made(self, upcoming: "asyncio.Future[Chunk | None]") -> Chunk | None:
        try:
            async with asyncio.timeout(self._chunk_seconds):
                return await upcoming
        except TimeoutError as error:
            detail = f"The next rows were not found within {self._chunk_seconds:g} s."
            raise Unavailable(detail, code="query_timeout", retry_after_seconds=5) from error

    async def _send_chunk(self, send: Send, chunk: Chunk) -> None:
        for piece in _pieces(chunk):
            async with asyncio.timeout(self._idle_seconds):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._sent_bytes += len(piece)

    def _result(self, sending: "asyncio.Future[None]", receive: Receive) -> str:
        """Say how it ended. Where the last chunk is not sent, the server closes the connection without its end."""
        try:
            sending.result()
        except TimeoutError:
            abort_connection(receive)
            return "idle"
        except (Problem, duckdb.Error) as error:
            if not self._has_begun:
                raise
            log.warning("export.failed", format=self._export.format.name, error=str(error))
            return "failed"
        return "whole"

    def _raw_headers(self) -> list[tuple[bytes, bytes]]:
        export, point = self._export, self._export.point
        headers = export_headers(self._replica, point, export.query, export.format) if point else {}
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    def _observe(self, result: str, seconds: float) -> None:
        name = self._export.format.name
        EXPORTS.labels(name, result).inc()
        EXPORT_BYTES.labels(name).inc(self._sent_bytes)
        log.info("export.ended", format=name, result=result, bytes=self._sent_bytes, seconds=round(seconds, 3))


def export_headers(replica: Replica, point: Point, query: ExportQuery, format_: Format) -> dict[str, str]:
    """Return the headers of an export."""
    name = f"{query.texts.dataset}-{point.version}.{format_.name}"
    charset = "; charset=utf-8" if format_.media_type.startswith("text/") else ""
    return replica_headers(replica, point) | {
        "ETag": export_etag(point, query, format_),
        "Content-Type": format_.media_type + charset,
        "Content-Disposition": f'attachment; filename="{name}"',
    }


def export_etag(point: Point, query: ExportQuery, format_: Format) -> str:
    """Return the validator. A weak one: two replicas of one version may hold the rows in different places."""
    return "W/" + etag(point, f"export {format_.columns} {format_.name} ".encode() + query.key)


def _pieces(chunk: Chunk) -> Iterator[memoryview]:
    whole = memoryview(chunk)
    for start in range(0, len(whole), _PIECE_BYTES):
        yield whole[start : start + _PIECE_BYTES]
