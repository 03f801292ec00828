"""The endpoints of single texts and of the queue: parse, delegate, return."""

from typing import Any
from uuid import UUID

import orjson
from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response

from core.datasets import Datasets
from core.models import TextStatus
from core.tracing import note_step
from core.web.app import PlainRoute, check_query_string, query_is_checked, require_media_type
from core.web.keys import Scope, is_dataset_allowed, require_dataset_allowed, require_scope
from core.web.negotiation import Router
from core.web.openapi import Responses, answer, header, reference, refusals
from core.web.problems import (
    Conflict,
    FieldError,
    InvalidFields,
    Malformed,
    NotFound,
    TooLarge,
    Unavailable,
    UnsupportedType,
    require_dataset,
)
from core.web.rate_limits import current_client
from ingestion_api.dependencies import ConnectionDep, DatasetParameter, DatasetsDep, read_body
from ingestion_api.texts import repository
from ingestion_api.texts.schemas import TEXT_ID, Queue, Receipt, TextCreate, TextRead, trace_steps
from ingestion_api.texts.submissions import NewText, parse_submission

_SHORT_BYTES = 4096
_FORGOTTEN = "text_forgotten"
_AWAY = Unavailable("The database is away.", code="database_unavailable")
_UNKNOWN_LABEL = FieldError("unknown_label", 'label "1" is not one of toxic, non_toxic', pointer="/label")
_UNKNOWN_DATASET = FieldError("unknown_dataset", 'dataset "spam" is not one of toxicity', parameter="dataset")
_NO_UUID = FieldError("uuid_parsing", "id must be a UUID (got 12).", parameter="id")
_DUPLICATE = {"id": TEXT_ID, "status": "pending", "duplicate": True}
_LOCATION = {"Location": header("Where the text is.", f"/texts/{TEXT_ID}")}
_STORED: Responses = {
    200: answer("The text was already stored.", _DUPLICATE, model=Receipt, headers=_LOCATION),
    201: {"description": "The text is stored.", "headers": _LOCATION},
}

router = Router(dependencies=[Depends(require_scope(Scope.INGEST)), Depends(query_is_checked)])


def add_create_text(app: FastAPI) -> None:
    """Add `POST /texts`, without FastAPI's dependencies."""
    app.router.add_api_route(
        "/texts",
        create_text,
        route_class_override=PlainRoute,
        methods=["POST"],
        tags=["texts"],
        status_code=201,
        response_model=Receipt,
        summary="Send a text",
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": reference(TextCreate)}}}
        },
        responses=_STORED
        | refusals(
            Malformed("Invalid JSON: EOF while parsing a string at line 1 column 11.", code="malformed_json"),
            Conflict("This text was forgotten on request. It cannot be stored again.", code=_FORGOTTEN),
            TooLarge("The text is longer than 65536 bytes of UTF-8.", code="text_too_large"),
            UnsupportedType("Send the body as Content-Type: application/json."),
            InvalidFields([_UNKNOWN_LABEL]),
            Unavailable("The intake is full. Send the text again.", code="intake_full"),
            scope="ingest",
        ),
    )


async def create_text(request: Request) -> Response:
    """Respond after the text is committed. Repeating a request is safe: it returns 200 and the same id."""
    state = request.app.state
    state.key_ring.admit(request, Scope.INGEST)
    check_query_string(request)
    require_media_type(request, "application/json")
    row = await _parse(await read_body(request), state.datasets)
    require_dataset_allowed(row.dataset)
    stored = await state.intake.store(row, current_client())
    if stored.status == TextStatus.FORGOTTEN:
        raise Conflict("This text was forgotten on request. It cannot be stored again.", code=_FORGOTTEN)
    note_step(request.scope, "receive", row.id, dataset=row.dataset, duplicate=stored.duplicate)
    receipt = {"id": row.id, "status": stored.status, "duplicate": stored.duplicate}
    return Response(
        orjson.dumps(receipt),
        200 if stored.duplicate else 201,
        {"Location": f"/texts/{row.id}"},
        "application/json",
    )


async def _parse(body: bytes, datasets: Datasets) -> NewText:
    # Enriching a long text may take a second: do not block other requests.
    if len(body) > _SHORT_BYTES and any(dataset.enriches for dataset in datasets.values()):
        return await to_thread.run_sync(parse_submission, body, datasets)
    return parse_submission(body, datasets)


@router.get(
    "/texts/{id}",
    tags=["texts"],
    summary="Show a text and its status",
    response_description="The text with its status and times.",
    responses=refusals(NotFound(f"There is no text {TEXT_ID}."), InvalidFields([_NO_UUID]), _AWAY, scope="ingest"),
)
async def read_text(id: UUID, connection: ConnectionDep) -> TextRead:  # noqa: A002 - the path's own word
    """Return a text with its status, times and near duplicates."""
    row = await repository.get_text_or_none(connection, id)
    if row is None or not is_dataset_allowed(row["dataset"]):
        raise NotFound(f"There is no text {id}.")
    if row["status"] == TextStatus.FORGOTTEN:
        raise NotFound(f"The text {id} was forgotten on request.", code=_FORGOTTEN)
    twins = await repository.list_twins(connection, id)
    near_duplicates = [dict(twin) for twin in twins]
    return TextRead.model_validate({**row, "trace": trace_steps(row), "near_duplicates": near_duplicates})


@router.get(
    "/queue",
    tags=["operations"],
    summary="Show how many texts wait",
    response_description="Counts of texts by status, and alerts.",
    responses=refusals(InvalidFields([_UNKNOWN_DATASET]), _AWAY, scope="ingest"),
)
async def read_queue(
    request: Request, connection: ConnectionDep, datasets: DatasetsDep, dataset: DatasetParameter = None
) -> Queue:
    """Count the texts by status, and list alerts: of one dataset, or of all datasets that the key may use."""
    if dataset is not None:
        require_dataset(dataset, datasets)
        require_dataset_allowed(dataset)
    chosen = {name: one for name, one in datasets.items() if dataset in {name, None} and is_dataset_allowed(name)}
    counts: dict[str, Any] = await repository.count_queue(connection, chosen)
    alerts = await repository.list_alerts(connection, chosen, request.app.state.forget.alert_seconds)
    return Queue.model_validate(counts | {"alerts": alerts})
