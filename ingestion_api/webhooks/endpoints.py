"""`POST /webhooks/argilla`: verifies Argilla's events, and records which texts to read again."""

import asyncio
import math
import re
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from core.tables.rows import ROW_BYTES
from core.tracing import note_step
from core.web.openapi import refusals
from core.web.problems import (
    BadSignature,
    Malformed,
    RequestTimeout,
    ShareExceeded,
    TooLarge,
    Unavailable,
    UnsupportedType,
)
from core.web.rate_limits import Turns, current_client
from ingestion_api import metrics
from ingestion_api.dependencies import read_body, require_length
from ingestion_api.texts import repository
from ingestion_api.texts.repository import list_webhook_secrets
from ingestion_api.texts.schemas import TEXT_ID

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_ID = re.compile(r"[\x21-\x7e]{1,200}")
_TIMESTAMP = re.compile(r"[0-9]{1,15}")
_SIGNATURES = re.compile(r"v1,[A-Za-z0-9+/]{43}=( [\x21-\x7e]{1,200}){0,9}")
_TOLERANCE_SECONDS = 5 * 60  # that of standardwebhooks

# Events with unknown signatures make us reload the secrets at most this often.
_LOOK_SECONDS = 1.0
# A withdrawn secret is forgotten after this time.
_KEEP_SECONDS = 10.0


def _check_headers(given: Mapping[str, str]) -> dict[str, str]:
    """Check the form and age of an event's headers, before its body is read, and return them."""
    headers = {name: given[name] for name in HEADERS if name in given}
    if len(headers) < len(HEADERS):
        raise BadSignature(f"Send {', '.join(HEADERS)}.")
    for name, pattern in zip(HEADERS, (_ID, _TIMESTAMP, _SIGNATURES), strict=True):
        if not pattern.fullmatch(headers[name]):
            raise BadSignature(f"{name} is not as Argilla sends it.")
    if abs(time.time() - int(headers["webhook-timestamp"])) > _TOLERANCE_SECONDS:
        raise BadSignature("The event is over five minutes old, or one of the clocks is wrong.")
    return headers


class WebhookSecrets:
    """This process's copy of the webhooks' secrets."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._webhooks: list[Webhook] = []
        self._read_at = -math.inf

    async def verify(self, body: bytes, headers: dict[str, str]) -> None:
        """Check that Argilla signed an event within the last five minutes.

        Raises:
            BadSignature: it did not.
            sqlalchemy.exc.SQLAlchemyError: the secrets cannot be read.
        """
        for seconds in (_KEEP_SECONDS, _LOOK_SECONDS):  # the webhook may be new
            await self._refresh(seconds)
            if any(_is_signed(webhook, body, headers) for webhook in self._webhooks):
                return
        raise BadSignature("The event is not signed by a webhook of ours, or is over five minutes old.")

    async def _refresh(self, seconds: float) -> None:
        now = time.monotonic()
        if now - self._read_at >= seconds:
            async with self._engine.connect() as connection:
                secrets = await list_webhook_secrets(connection)
            self._webhooks = [Webhook(secret) for secret in secrets]
            self._read_at = now


def _is_signed(webhook: Webhook, body: bytes, headers: dict[str, str]) -> bool:
    try:
        webhook.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):
        # The library raises ValueError for a signature that it cannot split or decode.
        return False
    return True


# An event contains its record with text and metadata, which came in one row. Argilla escapes characters outside
# ASCII, into at most three times the bytes. The rest is for guidelines, questions and the annotator's answer.
EVENT_BYTES = 4 * ROW_BYTES
# The sender is unknown until a body is read and verified: few are read at a time, and each has a time limit.
_READ_AT_ONCE, _WAITING, _WAITING_SHARE = 4, 64, 0.5
_BODY_SECONDS = 5.0
# Argilla waits 20 seconds for a response, and retries after 10, 60 and 180 seconds.
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
    """Return the queue that limits how many events are read at a time."""
    return Turns("events", _READ_AT_ONCE, _WAITING, _WAITING_SHARE)


_EVENT_EXAMPLE = {
    "type": "response.created",
    "version": 1,
    "timestamp": "2026-11-02T09:12:44.120934Z",
    "data": {
        "id": "b1f1c9a2-1f2b-4d6e-9f60-9f2b8f0f7a11",
        "status": "submitted",
        "record": {
            "id": "0d9f5d3e-4f0a-4a51-8f47-3a9f0f4f6f2e",
            "external_id": TEXT_ID,
            "dataset": {"id": "5f0c8f6d-6d2b-4c36-9d0f-0b8f2c5d7e3a"},
        },
    },
}
_HEADER_EXAMPLES = (
    "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "1793610764",
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
)

router = APIRouter(tags=["operations"])


# Needs no API key: the signature authenticates.
@router.post(
    "/webhooks/argilla",
    status_code=204,
    response_class=Response,
    summary="Take an event of Argilla's",
    openapi_extra={
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "example": example}
            for name, example in zip(HEADERS, _HEADER_EXAMPLES, strict=True)
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": _EVENT_EXAMPLE}},
        },
    },
    response_description="The event is stored, or is not about our texts.",
    responses=refusals(
        Malformed("The body is not an event of Argilla's.", code="malformed_event"),
        BadSignature("Send webhook-id, webhook-timestamp, webhook-signature."),
        RequestTimeout(_BODY_SECONDS),
        TooLarge(f"The body is longer than {EVENT_BYTES} bytes."),
        ShareExceeded("events", int(_WAITING * _WAITING_SHARE)),
        Unavailable("The database is away.", code="database_unavailable"),
    ),
)
async def receive_event(request: Request) -> Response:
    """Request a refresh of the text's annotations. Events of other kinds, or of other records, change nothing."""
    event, record = await _read_signed(request)
    noted = False
    text_id = _to_uuid(record.external_id) if record else None
    if record is not None and text_id is not None:
        async with request.app.state.engine.begin() as connection:
            noted = await repository.note_reread(
                connection, text_id, record.id, record.dataset.id, _in_utc(event.timestamp)
            )
    metrics.WEBHOOK_EVENTS.labels("noted" if noted else "ignored").inc()
    if noted and text_id is not None:
        note_step(request.scope, "event", text_id, type=event.type)
        metrics.WEBHOOK_LAG_SECONDS.observe((datetime.now(UTC) - _in_utc(event.timestamp)).total_seconds())
    return Response(status_code=204)


async def _read_signed(request: Request) -> tuple[_Event, _Record | None]:
    try:
        headers = _check_headers(request.headers)
        require_length(request, EVENT_BYTES)
        return _parse_event(await _read_and_verify(request, headers))
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
                await stack.enter_async_context(turns.turn(current_client()))
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


def _parse_event(body: bytes) -> tuple[_Event, _Record | None]:
    """Read an event and the record whose annotations changed; None if it is of another kind."""
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
        raise Malformed("The body is not an event of Argilla's.", code="malformed_event") from error


def _to_uuid(external_id: str | None) -> UUID | None:
    """Return the id of a text; None for a record that is not ours."""
    try:
        return UUID(external_id or "")
    except ValueError:
        return None


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
