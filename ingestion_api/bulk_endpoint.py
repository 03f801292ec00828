"""`POST /texts/bulk`."""

import asyncio
from collections.abc import Iterator
from typing import Annotated

import anyio.from_thread
import anyio.to_thread
import psycopg
from fastapi import Query, Request

from core.problems import Problem, Unavailable
from core.web import require_media_type
from ingestion_api import metrics
from ingestion_api.batches import BulkUpload
from ingestion_api.bulk import Counts, store_bulk
from ingestion_api.bulk_parameters import READERS, BulkParameters, make_upload
from ingestion_api.decoding import decode, require_encoding
from ingestion_api.dependencies import DatasetsDep
from ingestion_api.schemas import BulkResult
from ingestion_api.settings import IngestionSettings


class BodyTimeout(Problem):
    """The client sends too slowly."""

    status = 408
    code = "body_timeout"


async def create_texts(
    request: Request, datasets: DatasetsDep, parameters: Annotated[BulkParameters, Query()]
) -> BulkResult:
    """Store a body of any length, in constant memory. A bad row costs only itself, unless `on_error=abort`."""
    settings: IngestionSettings = request.app.state.settings
    media_type = require_media_type(request, *READERS)
    encoding = require_encoding(request.headers.get("content-encoding"))
    upload = make_upload(media_type, parameters, datasets, settings.bulk_chunk_rows)
    chunks = decode(_chunks(request, settings.idle_seconds), encoding)
    counts = await _run(request, upload, chunks)
    return BulkResult.model_validate(counts.as_dict())


async def _run(request: Request, upload: BulkUpload, chunks: Iterator[bytes]) -> Counts:
    limiter: anyio.CapacityLimiter = request.app.state.bulk_limiter
    if limiter.available_tokens < 1:
        raise Unavailable(
            "Other bulk uploads are under way. Send this one again.", code="bulk_busy", retry_after_seconds=5
        )

    def work() -> Counts:
        with request.app.state.bulk_engine.connect() as connection:
            raw: psycopg.Connection = connection.connection.driver_connection
            return store_bulk(raw, upload, chunks)

    with metrics.BULK_UPLOADS.track_inprogress():
        counts = await anyio.to_thread.run_sync(work, limiter=limiter)
    metrics.count_submissions(counts.accepted, counts.duplicates, counts.rejected)
    return counts


def _chunks(request: Request, idle_seconds: float) -> Iterator[bytes]:
    """Fetch the body from the event loop, a chunk whenever the worker thread wants one.

    Raises:
        BodyTimeout: the client sends nothing for `idle_seconds`.
        ClientDisconnect: the client is gone.
    """
    stream = request.stream()

    async def next_chunk() -> bytes | None:
        async with asyncio.timeout(idle_seconds):
            return await anext(stream, None)

    while True:
        try:
            chunk = anyio.from_thread.run(next_chunk)
        except TimeoutError:
            raise BodyTimeout(f"Nothing came for {idle_seconds:g} seconds.") from None
        if chunk is None:
            return
        yield chunk
