"""`/imports`: long files as jobs, whose upload may be continued."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import anyio.to_process
import orjson
from anyio import BrokenWorkerProcess
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from core.audit import Action, Entry, caller, noting, write_line
from core.tables.decoding import require_encoding
from core.tables.opening import MEDIA_TYPES
from core.web.keys import allowed_datasets
from core.web.negotiation import Router
from core.web.problems import Problem, Unavailable
from core.web.rate_limits import client_name
from ingestion_api.bulk.parameters import BulkParameters, check_parameters, read_content_type
from ingestion_api.bulk.pipes import run_watched
from ingestion_api.dependencies import ConnectionDep, DatasetsDep
from ingestion_api.imports import documentation as docs
from ingestion_api.imports import repository
from ingestion_api.imports.preview import FIRST_BYTES, WHOLE_BYTES, PreviewRequest, preview_body
from ingestion_api.imports.schemas import (
    AppendHeaders,
    Import,
    ImportList,
    ImportRead,
    Preview,
    UploadHeaders,
    VisibleState,
    import_fields,
)
from ingestion_api.imports.upload import (
    expected_length,
    lend_connection,
    receive,
    receive_parts,
    require_open,
    require_room,
    upload_headers,
)
from ingestion_api.settings import IngestionSettings

router = Router(tags=["imports"])

_SHOWN_ERRORS = 100
_PAGE_REJECTS = 1000


@router.post(
    "/imports",
    status_code=202,
    response_model=ImportRead,
    summary="Hand in a long file",
    openapi_extra={"requestBody": docs.IMPORT_BODY},
    responses=docs.IMPORT_MADE,
)
async def create_import(
    request: Request,
    datasets: DatasetsDep,
    parameters: Annotated[BulkParameters, Query()],
    headers: Annotated[UploadHeaders, Header()],
) -> Response:
    """Store the body; its rows are stored afterwards. Takes what `POST /texts/bulk` takes.

    With `Upload-Complete: ?0` the body, which may be empty, is only the beginning: go on with `PATCH`. So does a
    client that was cut off.
    """
    settings: IngestionSettings = request.app.state.settings
    media_type = read_content_type(request.headers.get("content-type", ""), parameters)
    encoding = require_encoding(request.headers.get("content-encoding"))
    check_parameters(parameters, datasets)
    length = expected_length(request, headers, 0, None, settings.import_max_bytes)
    given = parameters.model_dump(exclude_none=True)
    allowed = allowed_datasets()
    async with lend_connection(request) as connection:
        client = client_name(request.scope)
        await require_room(connection, settings, client, length)
        id_ = await repository.create_import(connection, client, media_type, encoding, given, length, allowed)
        await connection.commit()
    try:
        await receive(request, id_, headers, 0, length)
    except Problem as problem:
        problem.headers |= {"Location": f"/imports/{id_}"}
        raise
    return await _answer(request, id_)


@router.post(
    "/imports/preview",
    summary="See how a file would be read",
    openapi_extra={"requestBody": docs.IMPORT_BODY},
    responses=docs.IMPORT_PREVIEWED,
)
async def preview_import(
    request: Request, datasets: DatasetsDep, parameters: Annotated[BulkParameters, Query()]
) -> Preview:
    """Read the first MiB of a body as an import would, and propose what its columns are. Nothing is stored.

    Takes what `POST /imports` takes, with the same parameters; what follows the first MiB is ignored. Of Parquet
    and .xlsx the whole file is needed, up to 16 MiB.
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
    settings: IngestionSettings = request.app.state.settings
    start = bytearray()
    async for part in receive_parts(request, settings.idle_seconds):
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


@router.patch(
    "/imports/{id}",
    status_code=202,
    response_model=ImportRead,
    summary="Go on with the upload",
    openapi_extra={"requestBody": docs.PART_BODY},
    responses=docs.IMPORT_CONTINUED,
)
async def continue_import(
    id: UUID,  # noqa: A002 - the path's own word
    request: Request,
    headers: Annotated[AppendHeaders, Header()],
) -> Response:
    """Add to the body from `Upload-Offset` on; `204` while more of it is to come, `202` when it is complete."""
    settings: IngestionSettings = request.app.state.settings
    offset = headers.upload_offset
    async with lend_connection(request) as connection:
        row = await repository.get_import(connection, id)
    if not _is_repeated_end(row, request, headers):
        require_open(row, offset)
        length = expected_length(request, headers, offset, row["upload_length"], settings.import_max_bytes)
        await receive(request, id, headers, offset, length)
    return await _answer(request, id)


def _is_repeated_end(row: RowMapping, request: Request, headers: AppendHeaders) -> bool:
    """Whether a client says again, without content, that the upload is complete: the first answer was lost."""
    at_end = row["received_at"] is not None and row["upload_offset"] == headers.upload_offset
    return at_end and headers.complete is True and request.headers.get("content-length") == "0"


async def _answer(request: Request, id_: UUID) -> Response:
    settings: IngestionSettings = request.app.state.settings
    async with lend_connection(request) as connection:
        row = await repository.get_import(connection, id_)
        found = await _read(connection, row)
    headers = upload_headers(row, settings) | {"Location": f"/imports/{id_}"}
    if request.method == "PATCH" and row["received_at"] is None:
        return Response(status_code=204, headers=headers)
    return Response(found.model_dump_json(), 202, headers, "application/json")


async def _read(connection: AsyncConnection, row: RowMapping) -> ImportRead:
    errors = await repository.list_rejects(connection, row["id"], 0, _SHOWN_ERRORS)
    reasons = await repository.list_reasons(connection, row["id"])
    found = {"errors": list(map(dict, errors)), "error_groups": list(map(dict, reasons))}
    return ImportRead.model_validate(import_fields(row) | found)


@router.head(
    "/imports/{id}",
    status_code=204,
    response_class=Response,
    summary="Where to go on with the upload",
    responses=docs.OFFSET_READ,
)
async def read_offset(id: UUID, request: Request, connection: ConnectionDep) -> Response:  # noqa: A002
    """Tell how much of the body is stored."""
    row = await repository.get_import(connection, id)
    headers = upload_headers(row, request.app.state.settings) | {"Cache-Control": "no-store"}
    return Response(status_code=204, headers=headers)


@router.get(
    "/imports/{id}",
    summary="How far it has come",
    responses=docs.IMPORT_READ,
)
async def read_import(id: UUID, connection: ConnectionDep) -> ImportRead:  # noqa: A002
    """Return an import with its progress, its counts and its first errors."""
    row = await repository.get_import(connection, id)
    return await _read(connection, row)


@router.get(
    "/imports",
    summary="Imports, newest first",
    responses=docs.IMPORTS_LISTED,
)
async def list_imports(
    request: Request,
    response: Response,
    connection: ConnectionDep,
    state: VisibleState | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=1, lt=2**63, description="`next_cursor` of the page before.")] = None,
) -> ImportList:
    """Return imports, newest first: here a client that was cut off finds its own."""
    rows = await repository.list_imports(connection, state, cursor, limit + 1)
    items = [Import.model_validate(import_fields(row)) for row in rows[:limit]]
    next_cursor = str(rows[limit - 1]["sequence"]) if len(rows) > limit else None
    if next_cursor:
        query = request.url.include_query_params(cursor=next_cursor).query
        response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return ImportList(items=items, next_cursor=next_cursor)


@router.delete(
    "/imports/{id}",
    status_code=204,
    response_class=Response,
    summary="Stop it and forget it",
    responses=docs.IMPORT_DELETED,
)
async def delete_import(id: UUID, request: Request, connection: ConnectionDep) -> Response:  # noqa: A002
    """Stop an import and forget it. Rows that are stored stay."""
    entry = Entry("ingestion_api", caller(request), Action.IMPORT_DELETED, [str(id)])
    await repository.delete_import(connection, id)
    await connection.execute(noting(entry))
    await connection.commit()
    write_line(entry)
    return Response(status_code=204)


@router.get(
    "/imports/{id}/rejects",
    response_class=StreamingResponse,
    summary="The rows that were rejected, and why",
    responses=docs.REJECTS_READ,
)
async def read_rejects(id: UUID, request: Request) -> StreamingResponse:  # noqa: A002
    """Stream the rejected rows so far as NDJSON, in their order."""
    async with lend_connection(request) as connection:
        await repository.get_import(connection, id)
        first = await repository.list_rejects(connection, id, 0, _PAGE_REJECTS)
    return StreamingResponse(_rejects(request, id, first), media_type="application/x-ndjson")


async def _rejects(request: Request, id_: UUID, page: Sequence[RowMapping]) -> AsyncIterator[bytes]:
    while page:
        yield b"".join(_line(row) for row in page)
        async with lend_connection(request) as connection:
            page = await repository.list_rejects(connection, id_, page[-1]["row"], _PAGE_REJECTS)


def _line(row: RowMapping) -> bytes:
    fields = None if row["fields"] is None else orjson.Fragment(row["fields"])
    return orjson.dumps(dict(row) | {"fields": fields}, option=orjson.OPT_APPEND_NEWLINE)


def add_import_endpoints(guarded: APIRouter) -> None:
    """Add the paths of imports."""
    guarded.include_router(router)
