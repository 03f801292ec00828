"""`/imports`: long files as jobs, whose upload may be continued."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated
from uuid import UUID

import orjson
from anyio import BrokenWorkerProcess
from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from core.audit import Action, Entry, caller, noting, write_line
from core.web.app import query_is_checked
from core.web.keys import Scope, require_scope
from core.web.negotiation import Router
from core.web.problems import Problem, Unavailable
from core.web.rate_limits import current_client
from ingestion_api.bulk.endpoints import UploadDep
from ingestion_api.bulk.pipes import run_watched
from ingestion_api.dependencies import ConnectionDep, lend_connection, stream_body
from ingestion_api.imports import repository
from ingestion_api.imports import schemas as docs
from ingestion_api.imports.preview import IMPORT_PREVIEWED, Preview, preview_body, read_start
from ingestion_api.imports.schemas import (
    AppendHeaders,
    ImportList,
    ImportRead,
    ImportSummary,
    UploadHeaders,
    VisibleState,
    import_fields,
)
from ingestion_api.imports.upload import UploadStore, expected_length, require_open, require_room, upload_headers
from ingestion_api.settings import IngestionSettings

router = Router(dependencies=[Depends(require_scope(Scope.INGEST)), Depends(query_is_checked)], tags=["imports"])

_SHOWN_ERRORS = 100
_PAGE_REJECTS = 1000


@router.post(
    "/imports",
    status_code=202,
    response_model=ImportRead,
    summary="Import a long file",
    openapi_extra={"requestBody": docs.IMPORT_BODY},
    responses=docs.IMPORT_MADE,
)
async def create_import(
    request: Request, upload: UploadDep, headers: Annotated[UploadHeaders, Header()]
) -> Response:
    """Store the body; its rows are stored afterwards. Takes what `POST /texts/bulk` takes.

    With `Upload-Complete: ?0` the body, which may be empty, is only the beginning: continue it with `PATCH`. A
    client that was cut off does the same.
    """
    settings: IngestionSettings = request.app.state.settings
    length = expected_length(request.headers.get("content-length"), headers, 0, None, settings.import_max_bytes)
    async with lend_connection(request) as connection:
        client = current_client()
        await require_room(connection, settings, client, length)
        id_ = await repository.create_import(connection, client, upload, length)
        await connection.commit()
    try:
        await _receive(request, client, id_, headers, 0, length)
    except Problem as problem:
        problem.headers |= {"Location": f"/imports/{id_}"}
        raise
    return await _answer(request, id_)


@router.post(
    "/imports/preview",
    summary="See how a file would be read",
    openapi_extra={"requestBody": docs.IMPORT_BODY},
    responses=IMPORT_PREVIEWED,
)
async def preview_import(request: Request, upload: UploadDep) -> Preview:
    """Read the first MiB of a body as an import would, and propose a role for each column. Nothing is stored.

    Takes what `POST /imports` takes, with the same parameters; the rest is ignored. Parquet and
    .xlsx need the whole file, up to 16 MiB.
    """
    state = request.app.state
    settings: IngestionSettings = state.settings
    with state.bulk_places.hold(current_client()):
        start = await read_start(upload, stream_body(request))
        try:
            found = await run_watched(
                preview_body, start, settings, limiter=state.bulk_limiter, seconds=settings.worker_seconds
            )
        except BrokenWorkerProcess:
            raise Unavailable(
                "The process that read the body is gone. Send it again.", code="bulk_crashed"
            ) from None
    return Preview.model_validate(found)


@router.patch(
    "/imports/{id}",
    status_code=202,
    response_model=ImportRead,
    summary="Continue an upload",
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
        content, most = request.headers.get("content-length"), settings.import_max_bytes
        length = expected_length(content, headers, offset, row["upload_length"], most)
        await _receive(request, row["client"], id, headers, offset, length)
    return await _answer(request, id)


async def _receive(
    request: Request, client: str | None, id_: UUID, headers: UploadHeaders, offset: int, length: int | None
) -> None:
    state = request.app.state
    store = UploadStore(partial(lend_connection, request), state.settings, state.import_completed, client)
    await store.receive(stream_body(request), id_, headers, offset, length)


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
    summary="Show how much of the upload is stored",
    responses=docs.OFFSET_READ,
)
async def read_offset(id: UUID, request: Request, connection: ConnectionDep) -> Response:  # noqa: A002
    """Return the number of stored bytes in the headers."""
    row = await repository.get_import(connection, id)
    headers = upload_headers(row, request.app.state.settings) | {"Cache-Control": "no-store"}
    return Response(status_code=204, headers=headers)


@router.get("/imports/{id}", summary="Show an import", responses=docs.IMPORT_READ)
async def read_import(id: UUID, connection: ConnectionDep) -> ImportRead:  # noqa: A002
    """Return an import with its progress, its counts and its first errors."""
    row = await repository.get_import(connection, id)
    return await _read(connection, row)


@router.get("/imports", summary="List imports, newest first", responses=docs.IMPORTS_LISTED)
async def list_imports(
    request: Request,
    response: Response,
    connection: ConnectionDep,
    state: VisibleState | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=1, lt=2**63, description="`next_cursor` of the page before.")] = None,
) -> ImportList:
    """Return imports, newest first. A client that was cut off finds its import here."""
    rows = await repository.list_imports(connection, state, cursor, limit + 1)
    items = [ImportSummary.model_validate(import_fields(row)) for row in rows[:limit]]
    next_cursor = str(rows[limit - 1]["sequence"]) if len(rows) > limit else None
    if next_cursor:
        query = request.url.include_query_params(cursor=next_cursor).query
        response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return ImportList(items=items, next_cursor=next_cursor)


@router.delete(
    "/imports/{id}",
    status_code=204,
    response_class=Response,
    summary="Stop and delete an import",
    responses=docs.IMPORT_DELETED,
)
async def delete_import(id: UUID, request: Request, connection: ConnectionDep) -> Response:  # noqa: A002
    """Stop an import and delete it. Rows that are stored stay."""
    entry = Entry("ingestion_api", caller(request.scope), Action.IMPORT_DELETED, [str(id)])
    await repository.delete_import(connection, id)
    await connection.execute(noting(entry))
    await connection.commit()
    write_line(entry)
    return Response(status_code=204)


@router.get(
    "/imports/{id}/rejects",
    response_class=StreamingResponse,
    summary="Show the rejected rows",
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
