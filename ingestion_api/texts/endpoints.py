"""The endpoints of single texts and of the queue: parse, delegate, return."""

from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson
from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy import RowMapping

from core.datasets import Datasets, require_dataset
from core.models import TextStatus
from core.tracing.tracing import note_step, tracing
from core.web.app import add_plain_route, require_media_type
from core.web.keys import Scope, is_dataset_allowed, require_dataset_allowed, require_scope
from core.web.negotiation import Router
from core.web.problems import Conflict, NotFound
from core.web.rate_limits import client_name
from ingestion_api.bulk.endpoints import create_texts
from ingestion_api.dependencies import ConnectionDep, DatasetParameter, DatasetsDep, read_body
from ingestion_api.imports.endpoints import add_import_endpoints
from ingestion_api.texts import documentation as docs
from ingestion_api.texts import repository
from ingestion_api.texts.schemas import BulkResult, Queue, Receipt, TextRead, TraceStep
from ingestion_api.texts.submissions import NewText, parse_submission
from ingestion_api.webhooks import receive_event

_STEPS = ("received", "uploaded", "labelled")


def trace_steps(row: RowMapping | dict[str, Any]) -> list[TraceStep]:
    """Return the steps that have happened, of a row with `received_at`, `uploaded_at`, `labelled_at` and `status`.

    In the order of their times: a text that was labelled, and uploaded again since, has its upload last.
    """
    times = sorted((row[f"{step}_at"], step) for step in _STEPS if row[f"{step}_at"] is not None)
    waits = [None, *((later - earlier).total_seconds() for (earlier, _), (later, _) in pairwise(times))]
    steps = [
        TraceStep(step=step, at=at, seconds_since_previous=wait)
        for (at, step), wait in zip(times, waits, strict=True)
    ]
    if row["status"] == "failed":
        steps.append(TraceStep(step="failed", at=None, seconds_since_previous=None))
    return steps


_SHORT_BYTES = 4096
_FORGOTTEN = "text_forgotten"


def add_endpoints(app: FastAPI) -> None:
    """Add all data paths."""
    add_plain_route(
        app,
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
    guarded = Router(dependencies=[Depends(require_scope(Scope.INGEST))])
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
    add_import_endpoints(guarded)
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
    state.key_ring.admit(request, Scope.INGEST)
    require_media_type(request, "application/json")
    row = await _parse(await read_body(request), state.datasets)
    require_dataset_allowed(row.dataset)
    stored = await state.intake.store(row, client_name(request.scope))
    if stored.status == TextStatus.FORGOTTEN:
        raise Conflict("This text was forgotten on request, and is not taken again.", code=_FORGOTTEN)
    if tracing.on:
        note_step(request.scope, "receive", row.id, dataset=row.dataset, duplicate=stored.duplicate)
    receipt = {"id": row.id, "status": stored.status, "duplicate": stored.duplicate}
    return Response(
        orjson.dumps(receipt),
        200 if stored.duplicate else 201,
        {"Location": f"/texts/{row.id}"},
        "application/json",
    )


async def _parse(body: bytes, datasets: Datasets) -> NewText:
    # To enrich a long text may take a second; others go on meanwhile.
    if len(body) > _SHORT_BYTES and any(dataset.enriches for dataset in datasets.values()):
        return await to_thread.run_sync(parse_submission, body, datasets)
    return parse_submission(body, datasets)


async def read_text(id: UUID, connection: ConnectionDep) -> TextRead:  # noqa: A002 - the path's own word
    """Return a text with its status, times and near twins."""
    row = await repository.get_text_or_none(connection, id)
    if row is None or not is_dataset_allowed(row["dataset"]):
        raise NotFound(f"There is no text {id}.")
    if row["status"] == TextStatus.FORGOTTEN:
        raise NotFound(f"The text {id} was forgotten on request.", code=_FORGOTTEN)
    twins = await repository.list_twins(connection, id)
    near_duplicates = [dict(twin) for twin in twins]
    return TextRead.model_validate({**row, "trace": trace_steps(row), "near_duplicates": near_duplicates})


async def read_queue(
    request: Request, connection: ConnectionDep, datasets: DatasetsDep, dataset: DatasetParameter = None
) -> Queue:
    """Count texts by status, and list alerts (blocked jobs): of one dataset, or of all that the key may use."""
    if dataset is not None:
        require_dataset(dataset, datasets)
        require_dataset_allowed(dataset)
    chosen = {name: one for name, one in datasets.items() if dataset in {name, None} and is_dataset_allowed(name)}
    counts: dict[str, Any] = await repository.count_queue(connection, chosen)
    alerts = await repository.list_alerts(connection, chosen, request.app.state.forget.alert_seconds)
    return Queue.model_validate(counts | {"alerts": alerts})
