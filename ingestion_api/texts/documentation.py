"""What OpenAPI says of requests and answers, with an example of each, errors included."""

from typing import Any

from core.web.openapi import (
    Responses,
    answer,
    header,
    key_refusals,
    problem,
    reference,
    share_exceeded,
    unavailable,
    wrong_field,
    wrong_parameter,
)
from ingestion_api.texts.schemas import Receipt, TextCreate

_ID = "d4a7c5f0-7f0e-8c55-9a3e-0f3d6d9f1c2b"
_TEXT = {"text": "You are all idiots.", "label": "toxic", "score": 0.93, "source": "forum"}
_TWIN_ID = "0c5a6e1b-9a43-8d1c-8f52-7d2b1e9a4c10"
_RECEIPT = {"id": _ID, "status": "pending", "duplicate": False}
_LOCATION = {"Location": header("Where the text is.", f"/texts/{_ID}")}
_AWAY = unavailable("database_unavailable", "The database is away.")

TEXT_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": reference(TextCreate), "example": _TEXT}},
}
TEXT_CREATED: Responses = {
    200: answer("The text was there before.", _RECEIPT | {"duplicate": True}, model=Receipt, headers=_LOCATION),
    201: answer("The text is stored.", _RECEIPT, headers=_LOCATION),
    400: problem(400, "malformed_json", "Invalid JSON: EOF while parsing a string at line 1 column 11."),
    **key_refusals("ingest"),
    409: problem(409, "text_forgotten", "This text was forgotten on request, and is not taken again."),
    413: problem(413, "text_too_large", "The text is longer than 65536 bytes of UTF-8."),
    415: problem(415, "unsupported_media_type", "Send the body as Content-Type: application/json."),
    422: wrong_field("/label", "unknown_label", "must be one of: toxic, non_toxic"),
    503: unavailable("intake_full", "The intake is full. Send the text again."),
}

_ROWS = [{"text": "You are all idiots.", "label": "toxic"}, {"text": "Thanks!"}]
_TEXT_ROWS = {
    "application/x-ndjson": '{"text": "You are all idiots.", "label": "toxic"}\n{"text": "Thanks!"}\n',
    "application/jsonl": '{"text": "You are all idiots.", "label": "toxic"}\n{"text": "Thanks!"}\n',
    "text/csv": "text,label\nYou are all idiots.,toxic\nThanks!,\n",
    "text/tab-separated-values": "text\tlabel\nYou are all idiots.\ttoxic\nThanks!\t\n",
}
# The second kind of row says what is true: whatever a row is, a bad one costs only itself.
_ARRAY = {"type": "array", "items": {"anyOf": [reference(TextCreate), {"description": "Rejected, alone."}]}}
_ROW_ERROR = {
    "row": 3,
    "code": "unknown_label",
    "detail": 'label "1" is not one of toxic, non_toxic; map it with label_map=1:toxic',
}
_ERROR_GROUP = {"code": _ROW_ERROR["code"], "detail": _ROW_ERROR["detail"], "count": 1, "rows": [3]}
_COUNTS = {"received": 3, "accepted": 1, "duplicates": 1, "rejected": 1}
_NOTHING_STORED = {"received": 3, "accepted": 0, "duplicates": 0, "rejected": 1}

BULK_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": _ARRAY, "example": _ROWS},
        **{kind: {"schema": {"type": "string"}, "example": rows} for kind, rows in _TEXT_ROWS.items()},
        **{
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in (
                "application/vnd.apache.parquet",
                "application/parquet",
                "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            )
        },
    },
}
BULK_STORED: Responses = {
    200: answer("What became of the rows.", _COUNTS | {"errors": [_ROW_ERROR], "error_groups": [_ERROR_GROUP]}),
    400: problem(400, "malformed_json", "The body ends before its array does.", **_COUNTS, errors=[_ROW_ERROR]),
    **key_refusals("ingest"),
    408: problem(408, "body_timeout", "Nothing came for 30 seconds.", **_COUNTS, errors=[_ROW_ERROR]),
    413: problem(413, "row_too_large", "A row is longer than 1048576 bytes.", **_COUNTS, errors=[_ROW_ERROR]),
    415: problem(415, "unsupported_media_type", "Send the body as Content-Type: application/x-ndjson or …"),
    422: problem(
        422,
        "rows_rejected",
        "1 rows were rejected; nothing is stored.",
        **_NOTHING_STORED,
        errors=[_ROW_ERROR],
    ),
    503: unavailable("bulk_busy", "Too many bulk uploads are under way.", 5),
}

TEXT_READ: Responses = {
    200: answer(
        "The text, and how far it has come.",
        {
            "id": _ID,
            "dataset": "toxicity",
            "text": "You are all idiots.",
            "claimed_label": "toxic",
            "score": 0.93,
            "source": "forum",
            "external_id": "post-17",
            "metadata": {"thread": 4},
            "enrichment": {"language": {"code": "en", "confidence": 0.91}},
            "status": "labelled",
            "received_at": "2026-11-01T08:30:00.000000Z",
            "uploaded_at": "2026-11-01T08:30:02.501200Z",
            "labelled_at": "2026-11-02T09:12:44.120934Z",
            "attempts": 1,
            "last_error": None,
            "near_duplicates": [{"id": _TWIN_ID, "similarity": 0.86}],
            "trace": [
                {"step": "received", "at": "2026-11-01T08:30:00.000000Z", "seconds_since_previous": None},
                {"step": "uploaded", "at": "2026-11-01T08:30:02.501200Z", "seconds_since_previous": 2.5012},
                {"step": "labelled", "at": "2026-11-02T09:12:44.120934Z", "seconds_since_previous": 88961.619734},
            ],
        },
    ),
    **key_refusals("ingest"),
    404: problem(404, "not_found", f"There is no text {_ID}."),
    422: wrong_parameter("id", "uuid_parsing", "Input should be a valid UUID"),
    503: _AWAY,
}

QUEUE_READ: Responses = {
    200: answer(
        "How much waits where.",
        {
            "pending": 120,
            "uploading": 250,
            "uploaded": 4100,
            "failed": 2,
            "near_duplicates": 0,
            "oldest_pending_seconds": 1.25,
            "open_records": 900,
            "alerts": [
                {
                    "dataset": "toxicity",
                    "code": "argilla_key_unknown",
                    "reason": "PUT /api/v1/datasets/…/records/bulk: Argilla answered 401: it does not know the "
                    "key in ARGILLA_API_KEY. Set ARGILLA_API_KEY to the key of an owner, …",
                    "since": "2026-11-01T08:30:00.000000Z",
                }
            ],
        },
    ),
    **key_refusals("ingest"),
    422: wrong_parameter("dataset", "unknown_dataset", "must be one of: toxicity"),
    503: _AWAY,
}

_EVENT = {
    "type": "response.created",
    "version": 1,
    "timestamp": "2026-11-02T09:12:44.120934Z",
    "data": {
        "id": "b1f1c9a2-1f2b-4d6e-9f60-9f2b8f0f7a11",
        "status": "submitted",
        "record": {
            "id": "0d9f5d3e-4f0a-4a51-8f47-3a9f0f4f6f2e",
            "external_id": _ID,
            "dataset": {"id": "5f0c8f6d-6d2b-4c36-9d0f-0b8f2c5d7e3a"},
        },
    },
}
EVENT: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "example": example}
        for name, example in (
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1793610764"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        )
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": _EVENT}},
    },
}
EVENT_TAKEN: Responses = {
    204: {"description": "The event is taken. It is on disk, unless it is about something else than our texts."},
    400: problem(400, "malformed_event", "The body is no event of Argilla's."),
    401: problem(401, "bad_signature", "Send webhook-id, webhook-timestamp, webhook-signature."),
    408: problem(408, "request_timeout", "The request did not go on for 5 s."),
    413: problem(413, "body_too_large", "The body is longer than 4194304 bytes."),
    429: share_exceeded("events", 32),
    503: _AWAY,
}
