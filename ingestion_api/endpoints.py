"""The ingestion API's endpoints: parse, delegate, return."""

from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Request, Response

from core.keys import Scope, require_scope
from core.problems import FieldError, InvalidFields, NotFound
from core.web import require_media_type
from ingestion_api import documentation as docs
from ingestion_api import repository
from ingestion_api.bulk_endpoint import router as bulk_router
from ingestion_api.dependencies import BodyDep, ConnectionDep, DatasetsDep
from ingestion_api.schemas import Queue, Receipt, TextRead
from ingestion_api.submissions import parse_submission

router = APIRouter(dependencies=[Depends(require_scope(Scope.INGEST))], tags=["texts"])
router.include_router(bulk_router)


@router.post(
    "/texts",
    status_code=201,
    response_model=Receipt,
    summary="Hand in a text",
    description="Answers once the text is stored. The same text again answers 200 with the first one's id, so any "
    "request may be sent again.",
    openapi_extra={"requestBody": docs.TEXT_BODY},
    responses=docs.TEXT_CREATED,
)
async def create_text(request: Request, body: BodyDep, datasets: DatasetsDep) -> Response:
    """Store one text."""
    require_media_type(request, "application/json")
    row = parse_submission(body, datasets)
    stored = await request.app.state.intake.store(row)
    receipt = {"id": row.id, "status": stored.status, "duplicate": stored.duplicate}
    return Response(
        orjson.dumps(receipt),
        200 if stored.duplicate else 201,
        {"Location": f"/texts/{row.id}"},
        "application/json",
    )


@router.get(
    "/texts/{id}",
    summary="How far a text has come",
    responses=docs.TEXT_READ,
)
async def read_text(id: UUID, connection: ConnectionDep) -> TextRead:  # noqa: A002 - the path's own word
    """Return a text with its status and times."""
    row = await repository.get_text_or_none(connection, id)
    if row is None:
        raise NotFound(f"There is no text {id}.")
    return TextRead.model_validate(dict(row))


@router.get(
    "/queue",
    summary="How much waits where",
    tags=["operations"],
    responses=docs.QUEUE_READ,
)
async def read_queue(connection: ConnectionDep, datasets: DatasetsDep, dataset: str | None = None) -> Queue:
    """Count texts by status; of all datasets, or of one."""
    if dataset is not None and dataset not in datasets:
        known = ", ".join(sorted(datasets))
        raise InvalidFields([FieldError("unknown_dataset", f"must be one of: {known}", parameter="dataset")])
    chosen = datasets if dataset is None else {dataset: datasets[dataset]}
    counts: dict[str, Any] = await repository.count_queue(connection, chosen)
    return Queue.model_validate(counts)
