"""POST /webhooks/argilla: takes Argilla's events, and notes which texts are to be read again.

What an event says of an annotation is not used: events come late, twice and in the wrong order, or not at all.
The uploader reads from Argilla what is true.
"""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from core.fair_shares import Turns, client_name
from core.problems import BadSignature, Malformed, RequestTimeout, TooLarge, Unavailable, UnsupportedType
from core.tracing import note_step, tracing
from ingestion_api import metrics, repository
from ingestion_api.dependencies import read_body
from ingestion_api.schemas import ROW_BYTES
from ingestion_api.webhook_secrets import check_headers

# An event holds its record, so the text and its metadata, which came in a row. Argilla escapes what is not ASCII,
# into at most three times as many bytes. Guidelines, questions and the annotator's answer have the rest.
EVENT_BYTES = 4 * ROW_BYTES
_LENGTH_DIGITS = 15
# Nobody knows who sends a body before it is read: a few are read at once, and each must come soon.
_READ_AT_ONCE, _WAITING, _WAITING_SHARE = 4, 64, 0.5
_BODY_SECONDS = 5.0
# Argilla waits 20 seconds for its answer, and sends again after 10, 60 and 180 seconds.
_WAIT_SECONDS = 10.0
_RETRY_SECONDS = 10


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


def make_turns() -> Turns:
    """Return the turns that events take to be read."""
    return Turns("events", _READ_AT_ONCE, _WAITING, _WAITING_SHARE)


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
        headers = check_headers(request.headers)
        length = request.headers.get("content-length", "0")
        if len(length) > _LENGTH_DIGITS or int(length) > EVENT_BYTES:  # the server lets nothing but digits pass
            raise TooLarge(f"The body is longer than {EVENT_BYTES} bytes.")
        return parse_event(await _read_and_verify(request, headers))
    except BadSignature:
        metrics.WEBHOOK_EVENTS.labels("forged").inc()
        raise
    except (Malformed, TooLarge, UnsupportedType):
        metrics.WEBHOOK_EVENTS.labels("malformed").inc()
        raise


async def _read_and_verify(request: Request, headers: dict[str, str]) -> bytes:
    turns: Turns = request.app.state.webhook_turns
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await stack.enter_async_context(turns.turn(client_name(request.scope)))
        except TimeoutError:
            raise Unavailable(
                "Other events are being read.", code="webhooks_busy", retry_after_seconds=_RETRY_SECONDS
            ) from None
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await read_body(request, EVENT_BYTES)
        except TimeoutError:
            raise RequestTimeout(_BODY_SECONDS) from None
        await request.app.state.webhook_secrets.verify(body, headers)
    return body


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
