"""`POST /imports/preview`: how a body would be read."""

from pathlib import Path
from typing import Annotated, Any

import anyio.to_process
from anyio import BrokenWorkerProcess
from fastapi import Depends, Query, Request

from core.tables.decoding import require_encoding
from core.tables.opening import MEDIA_TYPES
from core.web.app import query_is_checked
from core.web.http_protocol import http_settings
from core.web.keys import Scope, allowed_datasets, require_scope
from core.web.negotiation import Router
from core.web.problems import Unavailable
from core.web.rate_limits import client_name
from ingestion_api.bulk.parameters import BulkParameters, check_parameters, read_content_type
from ingestion_api.bulk.pipes import run_watched
from ingestion_api.bulk.schemas import BULK_BODY
from ingestion_api.dependencies import DatasetsDep, stream_body
from ingestion_api.imports.upload import receive_parts
from ingestion_api.previews.schemas import IMPORT_PREVIEWED, Preview
from ingestion_api.previews.service import FIRST_BYTES, WHOLE_BYTES, PreviewRequest, preview_body

router = Router(dependencies=[Depends(require_scope(Scope.INGEST)), Depends(query_is_checked)], tags=["imports"])


@router.post(
    "/imports/preview",
    summary="See how a file would be read",
    openapi_extra={"requestBody": BULK_BODY},
    responses=IMPORT_PREVIEWED,
)
async def preview_import(
    request: Request, datasets: DatasetsDep, parameters: Annotated[BulkParameters, Query()]
) -> Preview:
    """Read the first MiB of a body as an import would, and propose a role for each column. Nothing is stored.

    Takes what `POST /imports` takes, with the same parameters; the rest is ignored. Parquet and
    .xlsx need the whole file, up to 16 MiB.
    """
    media_type = read_content_type(request.headers.get("content-type", ""), parameters)
    encoding = require_encoding(request.headers.get("content-encoding"))
    check_parameters(parameters, datasets)
    with request.app.state.bulk_places.hold(client_name(request.scope)):
        body, is_whole = await _read_start(request, MEDIA_TYPES[media_type] in {"parquet", "xlsx"})
        preview = PreviewRequest(body, is_whole, media_type, encoding, parameters, datasets, allowed_datasets())
        return Preview.model_validate(await _preview_in_process(request, preview))


async def _read_start(request: Request, is_indexed: bool) -> tuple[bytes, bool]:
    """Return the beginning of the body, and whether that is all of it."""
    start = bytearray()
    async for part in receive_parts(stream_body(request), http_settings().body_seconds):
        start += part
        is_indexed = is_indexed or start.startswith((b"PAR1", b"PK\x03\x04"))
        most = WHOLE_BYTES if is_indexed else FIRST_BYTES
        if len(start) > most:
            return bytes(start[:most]), False
    return bytes(start), True


async def _preview_in_process(request: Request, preview: PreviewRequest) -> dict[str, Any]:
    state = request.app.state

    async def run(reports: Path) -> dict[str, Any]:
        return await anyio.to_process.run_sync(
            preview_body, preview, state.settings, reports, cancellable=True, limiter=state.bulk_limiter
        )

    try:
        return await run_watched(run, state.settings.worker_seconds)
    except BrokenWorkerProcess:
        raise Unavailable("The process that read the body is gone. Send it again.", code="bulk_crashed") from None
