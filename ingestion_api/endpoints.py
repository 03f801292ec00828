"""The ingestion API's endpoints: parse, delegate, return."""

from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from core.datasets import require_dataset
from core.keys import Scope, require_scope
from core.problems import NotFound
from core.web import require_media_type
from ingestion_api import documentation as docs
from ingestion_api import repository
from ingestion_api.bulk_endpoint import create_texts
from ingestion_api.dependencies import ConnectionDep, DatasetsDep, read_body
from ingestion_api.schemas import BulkResult, Queue, Receipt, TextRead
from ingestion_api.submissions import parse_submission
from ingestion_api.webhooks import receive_event


def add_endpoints(app: FastAPI) -> None:
    """Add all data paths. `POST /texts` comes first, without dependencies: each costs as much as the check."""
    app.add_api_route(
        "/texts",
        create_text,
        methods=["POST"],
        tags=["texts"],
        status_code=201,
        response_model=Receipt,
        summary="Hand in a text",
        openapi_extra={"requestBody": docs.TEXT_BODY},
        responses=docs.TEXT_CREATED,
    )
    guarded = APIRouter(dependencies=[Depends(require_scope(Scope.INGEST))])
    guarded.add_api_route(
        "/texts/bulk",
        create_texts,
        methods=["POST"],
        tags=["texts"],
        response_model=BulkResult,
        summary="Hand in many texts",
        openapi_extra={"requestBody": docs.BULK_BODY},
        responses=docs.BULK_STORED,
    )
    guarded.add_api_route(
        "/texts/{id}",
        read_text,
        tags=["texts"],
        summary="How far a text has come",
        responses=docs.TEXT_READ,
    )
    guarded.add_api_route(
        "/queue",
        read_queue,
        tags=["operations"],
        summary="How much waits where",
        responses=docs.QUEUE_READ,
    )
    app.include_router(guarded)
    # Without a key: the signature is one.
    app.add_api_route(
        "/webhooks/argilla",
        receive_event,
        methods=["POST"],
        tags=["operations"],
        status_code=204,
        response_class=Response,
        summary="Take an event of Argilla's",
        openapi_extra=docs.EVENT,
        responses=docs.EVENT_TAKEN,
    )


async def create_text(request: Request) -> Response:
    """Answer once the text is stored. The same text again answers 200 with the first one's id: send it at will."""
    state = request.app.state
    state.key_ring.check(request.headers.get("authorization"), Scope.INGEST)
    require_media_type(request, "application/json")
    row = parse_submission(await read_body(request), state.datasets)
    stored = await state.intake.store(row)
    receipt = {"id": row.id, "status": stored.status, "duplicate": stored.duplicate}
    return Response(
        orjson.dumps(receipt),
        200 if stored.duplicate else 201,
        {"Location": f"/texts/{row.id}"},
        "application/json",
    )


async def read_text(id: UUID, connection: ConnectionDep) -> TextRead:  # noqa: A002 - the path's own word
    """Return a text with its status and times."""
    row = await repository.get_text_or_none(connection, id)
    if row is None:
        raise NotFound(f"There is no text {id}.")
    return TextRead.model_validate(dict(row))


async def read_queue(connection: ConnectionDep, datasets: DatasetsDep, dataset: str | None = None) -> Queue:
    """Count texts by status; of all datasets, or of one."""
    if dataset is not None:
        require_dataset(dataset, datasets)
    chosen = datasets if dataset is None else {dataset: datasets[dataset]}
    counts: dict[str, Any] = await repository.count_queue(connection, chosen)
    return Queue.model_validate(counts)
