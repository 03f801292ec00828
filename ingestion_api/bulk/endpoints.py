"""`POST /texts/bulk`."""

import asyncio
from typing import Annotated

from anyio import BrokenWorkerProcess
from fastapi import Depends, Query, Request

from core.tables.decoding import require_encoding
from core.tracing import TRACEPARENT
from core.web.app import query_is_checked
from core.web.keys import Scope, allowed_datasets, require_scope
from core.web.negotiation import Router
from core.web.problems import Problem, Unavailable
from core.web.rate_limits import Places, current_client
from ingestion_api import metrics
from ingestion_api.bulk.batches import BulkUpload
from ingestion_api.bulk.pipes import open_pipe, run_watched, send_body
from ingestion_api.bulk.schemas import (
    BULK_BODY,
    BULK_STORED,
    BulkParameters,
    BulkResult,
    check_parameters,
    read_content_type,
)
from ingestion_api.bulk.store import Counts, store_body
from ingestion_api.dependencies import DatasetsDep, stream_body
from ingestion_api.settings import IngestionSettings

router = Router(dependencies=[Depends(require_scope(Scope.INGEST)), Depends(query_is_checked)], tags=["texts"])


async def read_upload(
    request: Request, datasets: DatasetsDep, parameters: Annotated[BulkParameters, Query()]
) -> BulkUpload:
    """Return how to read the request's body; wrong headers and parameters are refused before it comes."""
    media_type = read_content_type(request.headers.get("content-type", ""), parameters)
    encoding = require_encoding(request.headers.get("content-encoding"))
    check_parameters(parameters, datasets, media_type)
    return BulkUpload(media_type, encoding, parameters, datasets, allowed_datasets())


UploadDep = Annotated[BulkUpload, Depends(read_upload)]


@router.post(
    "/texts/bulk",
    summary="Send many texts",
    openapi_extra={"requestBody": BULK_BODY},
    responses=BULK_STORED,
)
async def create_texts(request: Request, upload: UploadDep) -> BulkResult:
    """Store a body of any length, in constant memory. A bad row costs only itself, unless `on_error=abort`."""
    places: Places = request.app.state.bulk_places
    with places.hold(current_client()), metrics.BULK_UPLOADS.track_inprogress():
        try:
            counts = (await _store_in_process(request, upload)).as_dict()
        except BrokenWorkerProcess:
            raise Unavailable(
                "The process that stored the rows is gone; some are stored. Send them again.", code="bulk_crashed"
            ) from None
        except Problem as problem:
            metrics.count_submissions(problem.extra)
            raise
    metrics.count_submissions(counts)
    return BulkResult.model_validate(counts)


async def _store_in_process(request: Request, upload: BulkUpload) -> Counts:
    state, traceparent = request.app.state, request.scope.get(TRACEPARENT)
    settings: IngestionSettings = state.settings
    with open_pipe() as (body, end):
        arguments = upload, body, traceparent, state.database, settings
        sending = asyncio.create_task(send_body(stream_body(request), end))
        try:
            return await run_watched(
                store_body, *arguments, limiter=state.bulk_limiter, seconds=settings.worker_seconds
            )
        finally:
            sending.cancel()
            await asyncio.wait([sending])
