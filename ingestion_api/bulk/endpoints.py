"""`POST /texts/bulk`."""

import asyncio
from pathlib import Path
from typing import Annotated

import anyio
import anyio.to_process
from anyio import BrokenWorkerProcess
from fastapi import Depends, Query, Request

from core.tables.decoding import require_encoding
from core.tracing import TRACEPARENT
from core.web.app import query_is_checked
from core.web.http_protocol import http_settings
from core.web.keys import Scope, allowed_datasets, require_scope
from core.web.negotiation import Router
from core.web.problems import Problem, Unavailable
from core.web.rate_limits import Places, client_name
from ingestion_api import metrics
from ingestion_api.bulk.parameters import BulkParameters, check_parameters, read_content_type
from ingestion_api.bulk.pipes import open_pipe, run_watched, send_body
from ingestion_api.bulk.schemas import BULK_BODY, BULK_STORED, BulkResult
from ingestion_api.bulk.store import BulkRequest, Counts, store_body
from ingestion_api.dependencies import DatasetsDep, stream_body
from ingestion_api.settings import IngestionSettings

router = Router(dependencies=[Depends(require_scope(Scope.INGEST)), Depends(query_is_checked)], tags=["texts"])


@router.post(
    "/texts/bulk",
    summary="Send many texts",
    openapi_extra={"requestBody": BULK_BODY},
    responses=BULK_STORED,
)
async def create_texts(
    request: Request, datasets: DatasetsDep, parameters: Annotated[BulkParameters, Query()]
) -> BulkResult:
    """Store a body of any length, in constant memory. A bad row costs only itself, unless `on_error=abort`."""
    media_type = read_content_type(request.headers.get("content-type", ""), parameters)
    encoding = require_encoding(request.headers.get("content-encoding"))
    check_parameters(parameters, datasets)
    traceparent = request.scope.get(TRACEPARENT)
    bulk = BulkRequest(media_type, encoding, parameters, datasets, allowed_datasets(), traceparent)
    counts = await _store(request, bulk)
    return BulkResult.model_validate(counts.as_dict())


async def _store(request: Request, bulk: BulkRequest) -> Counts:
    places: Places = request.app.state.bulk_places
    with places.hold(client_name(request.scope)), metrics.BULK_UPLOADS.track_inprogress():
        try:
            counts = await _store_in_process(request, bulk)
        except BrokenWorkerProcess:
            raise Unavailable(
                "The process that stored the rows is gone; some are stored. Send them again.", code="bulk_crashed"
            ) from None
        except Problem as problem:
            metrics.count_submissions(problem.extra)
            raise
    metrics.count_submissions(counts.as_dict())
    return counts


async def _store_in_process(request: Request, bulk: BulkRequest) -> Counts:
    state = request.app.state
    settings: IngestionSettings = state.settings
    with open_pipe() as (body, end):

        async def store(reports: Path) -> Counts:
            return await anyio.to_process.run_sync(
                store_body,
                bulk,
                body,
                state.database,
                settings,
                reports,
                cancellable=True,
                limiter=state.bulk_limiter,
            )

        sending = asyncio.create_task(send_body(stream_body(request), end, http_settings().body_seconds))
        try:
            return await run_watched(store, settings.worker_seconds)
        finally:
            sending.cancel()
            await asyncio.wait([sending])
