"""Argilla's events, signed as Argilla signs them."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from standardwebhooks.webhooks import Webhook

SECRET = "whsec_bm90IGEgcmVhbCBzZWNyZXQ="


def event(text_id: object, argilla_dataset_id: UUID, kind: str = "response.created", **record: Any) -> bytes:
    """Return an event about a text, as Argilla sends it."""
    shown = {"id": str(uuid.uuid4()), "external_id": str(text_id), "dataset": {"id": str(argilla_dataset_id)}}
    shown |= record
    data = shown if kind == "record.deleted" else {"id": str(uuid.uuid4()), "record": shown}
    timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps({"type": kind, "version": 1, "timestamp": timestamp, "data": data}).encode()


def signed(body: bytes, secret: str = SECRET, age_seconds: float = 0) -> dict[str, str]:
    """Return the headers that go with a body."""
    moment = datetime.now(UTC) - timedelta(seconds=age_seconds)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", moment, body.decode()),
        "content-type": "application/json",
    }
