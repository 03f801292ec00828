"""POST /webhooks/argilla: takes Argilla's events, and notes which texts are to be read again.

What an event says of an annotation is not used: events come late, twice and in the wrong order, or not at all.
The uploader reads from Argilla what is true.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from core.problems import BadSignature, Malformed, Problem
from core.tracing import note_step, tracing
from ingestion_api import metrics, repository
from ingestion_api.dependencies import read_body

# The largest text with its metadata and the dataset's guidelines, with each character escaped.
EVENT_BYTES = 16 * 1024 * 1024

_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class _Dataset(BaseModel):
    id: UUID


class _Record(BaseModel):
    id: UUID
    external_id: str | None
    dataset: _Dataset


class _Event(BaseModel):
    type: str
    timestamp: datetime
    data: dict[str, Any]


async def receive_event(request: Request) -> Response:
    """Note the text that an event is about. Events of other kinds, and of others' records, change nothing."""
    event, record = await _read_signed(request)
    noted = False
    text_id = _to_uuid(record.external_id) if record else None
    if record is not None and text_id is not None:
        async with request.app.state.engine.begin() as connection:
            noted = await repository.note_reread(
                connection, text_id, record.id, record.dataset.id, _in_utc(event.timestamp)
            )
    metrics.WEBHOOK_EVENTS.labels("noted" if noted else "ignored").inc()
    if noted and tracing.on and text_id is not None:
        note_step(request.scope, "event", text_id, type=event.type)
    if noted:
        metrics.WEBHOOK_LAG_SECONDS.observe((datetime.now(UTC) - _in_utc(event.timestamp)).total_seconds())
    return Response(status_code=204)


async def _read_signed(request: Request) -> tuple[_Event, _Record | None]:
    try:
        headers = {name: request.headers[name] for name in _HEADERS if name in request.headers}
        if len(headers) < len(_HEADERS):
            # Strangers are not worth reading.
            raise BadSignature(f"Send {', '.join(_HEADERS)}.")
        body = await read_body(request, EVENT_BYTES)
        await request.app.state.webhook_secrets.verify(body, headers)
        return parse_event(body)
    except Problem as problem:
        is_forged = isinstance(problem, BadSignature)
        metrics.WEBHOOK_EVENTS.labels("forged" if is_forged else "malformed").inc()
        raise


def parse_event(body: bytes) -> tuple[_Event, _Record | None]:
    """Read an event; the record is the one whose annotations changed, None when it is about something else.

    Raises:
        Malformed: it is no event.
    """
    try:
        event = _Event.model_validate(orjson.loads(body))
        match event.type:
            case "response.created" | "response.updated" | "response.deleted":
                return event, _Record.model_validate(event.data.get("record"))
            case "record.deleted":
                return event, _Record.model_validate(event.data)
            case _:
                return event, None
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise Malformed("The body is no event of Argilla's.", code="malformed_event") from error


def _to_uuid(external_id: str | None) -> UUID | None:
    """Return the id of a text; None for a record that somebody else made."""
    try:
        return UUID(external_id or "")
    except ValueError:
        return None


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
