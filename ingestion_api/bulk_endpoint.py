"""`POST /texts/bulk`."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Literal

import anyio.from_thread
import anyio.to_thread
import psycopg
from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field

from core.datasets import Datasets
from core.problems import Problem, Unavailable
from core.web import require_media_type
from ingestion_api import metrics
from ingestion_api.bulk import BulkUpload, Counts, store_bulk
from ingestion_api.decoding import decode
from ingestion_api.dependencies import DatasetsDep, require_dataset
from ingestion_api.mapping import Columns, Mapping, map_columns, map_object, parse_label_map
from ingestion_api.readers import Reader, read_csv, read_json_array, read_ndjson, read_parquet
from ingestion_api.schemas import BulkResult
from ingestion_api.settings import IngestionSettings

_READERS: dict[str, Reader] = {
    "application/x-ndjson": read_ndjson,
    "application/json": read_json_array,
    "text/csv": read_csv,
    "application/vnd.apache.parquet": read_parquet,
}


class BulkParameters(BaseModel):
    """How the body is to be read."""

    model_config = ConfigDict(extra="forbid")

    on_error: Literal["skip", "abort"] = Field(
        "skip", description="`skip` stores the good rows; `abort` stores all or nothing."
    )
    dataset: str | None = Field(None, description="The dataset of rows that name none.")
    source: str | None = Field(
        None,
        min_length=1,
        description="The rows' source; in CSV and Parquet a column, if there is one of that name.",
    )
    text: str = Field("text", description="CSV, Parquet: the column of the text.")
    label: str | None = Field(
        None, description="CSV, Parquet: the column of the claimed label; else `label`, if any."
    )
    label_map: str | None = Field(None, description="THEIRS:OURS,… where labels have other names.")
    metadata: Literal["none", "all"] = Field(
        "none", description="CSV, Parquet: whether other columns become metadata."
    )


class BodyTimeout(Problem):
    """The client sends too slowly."""

    status = 408
    code = "body_timeout"


async def create_texts(
    request: Request, datasets: DatasetsDep, parameters: Annotated[BulkParameters, Query()]
) -> BulkResult:
    """Store a body of any length, in constant memory. A bad row costs only itself, unless `on_error=abort`."""
    settings: IngestionSettings = request.app.state.settings
    media_type = require_media_type(request, *_READERS)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    upload = BulkUpload(
        _READERS[media_type],
        _mapping(media_type, parameters, datasets),
        datasets,
        parameters.on_error == "abort",
        settings.bulk_chunk_rows,
    )
    chunks = decode(_chunks(request, settings.idle_seconds), encoding)
    counts = await _run(request, upload, chunks)
    return BulkResult.model_validate(counts.as_dict())


def _mapping(media_type: str, parameters: BulkParameters, datasets: Datasets) -> Mapping:
    if parameters.dataset is not None:
        require_dataset(parameters.dataset, datasets)
    given = {"dataset": parameters.dataset, "source": parameters.source}
    defaults = {name: value for name, value in given.items() if value is not None}
    label_map = parse_label_map(parameters.label_map)
    if media_type in {"application/x-ndjson", "application/json"}:
        return map_object(defaults, label_map)
    columns = Columns(parameters.text, parameters.label, parameters.source, parameters.metadata == "all")
    return map_columns(columns, defaults, label_map)


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
        return await anyio.to_thread.run_sync(work, limiter=limiter)


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
