"""Resumable uploads: stores the body of an import piece by piece, and refuses what does not fit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from core.models import ImportState
from core.web.problems import Conflict, FieldError, InvalidFields, Problem, TooLarge
from ingestion_api import metrics
from ingestion_api.dependencies import BodyCut, BodyTimeout
from ingestion_api.imports import repository
from ingestion_api.imports.schemas import (
    UploadHeaders,
    inconsistent_length,
    offset_mismatch,
    upload_completed,
    upload_state,
    upload_too_large,
)
from ingestion_api.settings import IngestionSettings


async def require_room(
    connection: AsyncConnection, settings: IngestionSettings, client: str, length: int | None
) -> None:
    """Check that a client may make another import, of `length` bytes if that is known, in this transaction.

    Raises:
        Problem: it has too many that have not ended.
        TooLarge: their bodies are too long together.
    """
    await repository.lock_client(connection, client)
    unfinished, size = await repository.count_bodies(connection, client)
    if unfinished >= settings.client_imports:
        raise Problem(
            f"You have {settings.client_imports} unfinished imports, and may have no more. Finish or delete one: "
            "GET /imports lists them.",
            status=429,
            code="too_many_imports",
            headers={"Retry-After": "60"},
        )
    _require_bytes(settings, size + (length or 0))


def _require_bytes(settings: IngestionSettings, size: int) -> None:
    most = settings.client_import_bytes
    if size > most:
        raise TooLarge(
            f"The bodies of your unfinished imports may have {most} bytes together. "
            "Wait until some have ended, or delete some; then continue this one.",
            code="import_bytes_exceeded",
        )


_CHUNK_BYTES = 1024 * 1024


def upload_headers(row: RowMapping, settings: IngestionSettings) -> dict[str, str]:
    """Return the headers that describe the state of an upload."""
    complete = row["received_at"] is not None
    headers = upload_state(row["upload_offset"], "?1" if complete else "?0")
    length = row["upload_offset"] if complete else row["upload_length"]
    if length is not None:
        headers["Upload-Length"] = str(length)
    limit = f"max-size={settings.import_max_bytes}, max-age={int(settings.import_expire_seconds)}"
    return headers | {"Upload-Limit": limit}


def require_open(row: RowMapping, offset: int) -> None:
    """Check that an import takes more of its body, from `offset` on.

    Raises:
        Conflict: it does not.
    """
    if row["received_at"] is not None:
        raise upload_completed(row["upload_offset"])
    if row["state"] != ImportState.RECEIVING:
        raise Conflict(f"The import is {row['state']}; make a new one.", code="import_ended")
    if row["upload_offset"] != offset:
        raise offset_mismatch(row["upload_offset"], offset)


def expected_length(
    content: str | None, headers: UploadHeaders, offset: int, known: int | None, most: int
) -> int | None:
    """Return the length of the whole body that a request at `offset` announces; None: it is unknown.

    `content` is the request's Content-Length, `known` the length that earlier requests have announced, `most` the
    limit.

    Raises:
        Malformed: it contradicts itself or an earlier one.
        TooLarge, InvalidFields: it is over the limit.
    """
    if headers.upload_length is not None and headers.upload_length > most:
        raise InvalidFields([FieldError("less_than_equal", f"must be at most {most}", parameter="upload-length")])
    content = content or ""
    end = offset + int(content) if content.isdecimal() else offset
    lengths = {length for length in (known, headers.upload_length) if length is not None}
    if content.isdecimal() and (headers.complete or (headers.complete is None and not lengths)):
        lengths.add(end)
    if len(lengths) > 1 or any(length < end for length in lengths):
        said = ", ".join(map(str, sorted({*lengths, end})))
        raise inconsistent_length(f"Headers contradict each other about the length of the upload: {said}.")
    if max(lengths, default=end) > most:
        raise upload_too_large(most)
    return lengths.pop() if lengths else None


@dataclass(frozen=True, slots=True)
class UploadStore:
    """Stores the bodies of imports. `connect` lends a connection; a complete upload sets `completed`.

    `client` made the imports; None if that is not known.
    """

    connect: Callable[[], AbstractAsyncContextManager[AsyncConnection]]
    settings: IngestionSettings
    completed: asyncio.Event
    client: str | None

    async def receive(
        self, stream: AsyncIterator[bytes], id_: UUID, headers: UploadHeaders, offset: int, length: int | None
    ) -> None:
        """Store the body of a request behind `offset`. It ends the upload if it says so or reaches the length.

        Raises:
            BodyTimeout, BodyCut: it was cut short; the bytes that came are stored.
            Conflict: another request was faster.
            Malformed: the body is longer than announced.
            TooLarge: it is longer than an import may be, or than the client's imports may be together; earlier
                bytes are stored.
            Unavailable, OperationalError: the database is slow or away.
        """
        async for piece in _pieces(stream):
            end = offset + len(piece)
            if length is not None and end > length:
                raise inconsistent_length(f"The upload is longer than the {length} bytes that were announced.")
            if end > self.settings.import_max_bytes:
                await self._refuse_too_long(id_)
            await self._store(id_, offset, length, piece)
            offset = end
        if headers.complete and length is not None and offset != length:
            raise inconsistent_length(f"The upload ends at {offset}, but {length} bytes were announced.")
        if offset == length or (length is None and headers.complete is not False):
            await self._complete(id_, offset)

    async def _store(self, id_: UUID, offset: int, length: int | None, piece: bytes) -> None:
        async with self.connect() as connection:
            if not await repository.append_chunk(connection, id_, offset, length, piece):
                require_open(await repository.get_import(connection, id_), offset)
                raise inconsistent_length("Another request has announced another length of the upload.")
            if self.client is not None:
                _, size = await repository.count_bodies(connection, self.client)
                _require_bytes(self.settings, size)
            await connection.commit()
        metrics.IMPORT_BYTES.inc(len(piece))

    async def _complete(self, id_: UUID, offset: int) -> None:
        async with self.connect() as connection:
            if not await repository.complete_upload(connection, id_, offset):
                require_open(await repository.get_import(connection, id_), offset)
            await connection.commit()
        self.completed.set()

    async def _refuse_too_long(self, id_: UUID) -> None:
        problem = upload_too_large(self.settings.import_max_bytes)
        async with self.connect() as connection:
            await repository.fail_upload(connection, id_, problem)
            await connection.commit()
        raise problem


async def _pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the body in pieces of 1 MiB; also the rest of one that is cut short, before that is raised."""
    gathered = bytearray()
    try:
        async for part in stream:
            gathered += part
            while len(gathered) >= _CHUNK_BYTES:
                yield bytes(gathered[:_CHUNK_BYTES])
                del gathered[:_CHUNK_BYTES]
    except (BodyTimeout, BodyCut):
        if gathered:
            yield bytes(gathered)
        raise
    if gathered:
        yield bytes(gathered)
