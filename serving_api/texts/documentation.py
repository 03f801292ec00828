"""What OpenAPI says of the answers: their schemas, and an example of each, errors included."""

import json
from typing import Any

from core.web.openapi import Responses, answer, header, key_refusals, problem, unavailable, wrong_parameter
from serving_api.columns import EXAMPLE_ITEM
from serving_api.texts.parameters import EXAMPLE_CURSOR, EXAMPLE_FEED
from serving_api.texts.schemas import (
    AgreementStats,
    AnnotatorsStats,
    ChangesPage,
    CountedPage,
    Stats,
    TextDetail,
    TextPage,
)

EXAMPLE_ID = EXAMPLE_ITEM["id"]

_HIT = EXAMPLE_ITEM | {"highlights": [[0, 7]]}
_DISPUTED_ITEM = EXAMPLE_ITEM | {
    "label": None,
    "status": "disputed",
    "agreement": 0.5,
    "votes": {"non_toxic": 2, "toxic": 2},
    "confidence": None,
}
_ANNOTATION = {
    "annotator": "ada",
    "role": "annotator",
    "value": "toxic",
    "status": "submitted",
    "created_at": "2026-11-02T09:12:40.100000Z",
    "updated_at": "2026-11-02T09:12:40.100000Z",
}
_STATS = {
    "dataset": "toxicity",
    "total": 3,
    "complete": 2,
    "by_label": {"toxic": 1, "non_toxic": 1},
    "by_status": {"labelled": 2, "disputed": 1},
    "by_source": {"forum": 2},
    "without_source": 1,
    "by_day": {"2026-11-02": 3},
    "by_annotator": {"ada": 3, "grace": 2},
    "version": 91342,
    "replica_age_seconds": 0.412,
}
_COEFFICIENT = {"value": 0.71, "n": 1200, "low": 0.68, "high": 0.74}
_AGREEMENT = {
    "dataset": "toxicity",
    "krippendorff_alpha": _COEFFICIENT,
    "fleiss_kappa": _COEFFICIENT,
    "observed_agreement": {"value": 0.86, "n": 1200, "low": 0.85, "high": 0.87},
    "cohen_kappa": [{"annotators": ["ada", "grace"], "value": 0.73, "n": 800, "low": 0.68, "high": 0.78}],
    "pairs": 1,
    "version": 91342,
}
_ANNOTATOR = {
    "annotator": "ada",
    "answers": 900,
    "discarded": 4,
    "first_at": "2026-11-02T09:12:40.100000Z",
    "last_at": "2026-11-05T16:40:02.730000Z",
    "answers_per_hour": 240.5,
    "agreement_with_outcome": {"value": 0.94, "n": 850},
    "gold_accuracy": {"value": 0.96, "n": 50},
    "confusion": {"toxic": {"toxic": 370, "non_toxic": 20}, "non_toxic": {"toxic": 31, "non_toxic": 429}},
}
_ANNOTATORS = {"dataset": "toxicity", "annotators": [_ANNOTATOR], "version": 91342}

REPLICA_HEADERS = {
    "X-Replica-Version": header("Point of the change feed that the answer shows.", "91342"),
    "X-Replica-Age": header("Seconds since the replica last read Postgres.", "0.412"),
    "Cache-Control": header("Caches must ask again.", "private, no-cache"),
}
_ETAG = {"ETag": header("For If-None-Match.", '"9f86d081884c7d659a2feaa0c55ad015"')}
_LINK = {"Link": header("Where the next page is.", f'</texts?cursor={EXAMPLE_CURSOR}>; rel="next"')}

MALFORMED = problem(400, "malformed_query", "The query string is not UTF-8.")
_REFUSALS: Responses = {
    400: MALFORMED,
    **key_refusals("read"),
    422: wrong_parameter("limit", "less_than_equal", "limit must be between 1 and 1000 (got 5000)."),
    503: unavailable("replica_missing", "The replica is being built.", retry_after_seconds=5),
}
_CURSOR_ERROR = {"parameter": "cursor", "code": "invalid_cursor", "detail": "Not a cursor of this list: …"}
_MISMATCH = problem(409, "invalid_cursor", "Not a cursor of this list: …", errors=[_CURSOR_ERROR])
NOT_MODIFIED = {"description": "The client holds this answer already.", "headers": REPLICA_HEADERS | _ETAG}
_NOT_MODIFIED: Responses = {304: NOT_MODIFIED}


def _answer(model: type, example: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    return answer("Successful Response", example, model=model, headers=REPLICA_HEADERS | headers)


_NOT_FOUND = (
    "No labelled text has this id: it is not labelled yet, or unknown. Ask the ingestion API which: "
    f"GET http://127.0.0.1:8080/texts/{EXAMPLE_ID}"
)

PAGE: Responses = {
    200: _answer(
        CountedPage,
        {"items": [_HIT], "next_cursor": EXAMPLE_CURSOR, "total": 4711, "version": 91342},
        _ETAG | _LINK,
    ),
    **_NOT_MODIFIED,
    **_REFUSALS,
    409: _MISMATCH,
}
DISPUTED: Responses = PAGE | {
    200: _answer(
        TextPage,
        {"items": [_DISPUTED_ITEM], "next_cursor": EXAMPLE_CURSOR, "version": 91342},
        _ETAG | {"Link": header("Where the next page is.", f'</disputed?cursor={EXAMPLE_CURSOR}>; rel="next"')},
    )
}
TEXT: Responses = {
    200: _answer(TextDetail, EXAMPLE_ITEM | {"annotations": [_ANNOTATION]}, _ETAG),
    **_NOT_MODIFIED,
    **_REFUSALS,
    404: problem(404, "text_not_found", _NOT_FOUND),
    422: wrong_parameter("id", "uuid_parsing", "id must be a UUID (got 17)."),
}
STATS: Responses = {
    200: _answer(Stats, _STATS, {}),
    **_REFUSALS,
    422: wrong_parameter("dataset", "unknown_dataset", "'x' is not one of: toxicity."),
}
AGREEMENT: Responses = {
    200: _answer(AgreementStats, _AGREEMENT, _ETAG),
    **_NOT_MODIFIED,
    **_REFUSALS,
    422: wrong_parameter("annotator", "too_short", "annotator must be sent at least 2 times (got 1)."),
}
ANNOTATORS: Responses = {
    200: _answer(AnnotatorsStats, _ANNOTATORS, _ETAG),
    **_NOT_MODIFIED,
    **_REFUSALS,
    422: wrong_parameter("dataset", "unknown_dataset", "'x' is not one of: toxicity."),
}

_UPSERT = {"op": "upsert", "version": 91342} | EXAMPLE_ITEM
_DELETE = {"op": "delete", "version": 91344, "id": EXAMPLE_ID, "dataset": "toxicity"}
_EVENTS = f"""retry: 1000
event: feed
data: {{"feed":"{EXAMPLE_FEED}","version":91344}}

id: 91344
event: delete
data: {json.dumps(_DELETE, separators=(",", ":"))}

: ping

"""
_CHANGES = _answer(
    ChangesPage,
    {"items": [_UPSERT, _DELETE], "next": 91344, "feed": EXAMPLE_FEED},
    _ETAG | {"Vary": header("Pages and events have one path.", "Accept")},
)
_CHANGES["content"]["text/event-stream"] = {"schema": {"type": "string"}, "example": _EVENTS}
CHANGES: Responses = {
    200: _CHANGES,
    **_NOT_MODIFIED,
    **_REFUSALS,
    409: problem(
        409,
        "feed_replaced",
        "The database is another one, and its versions too: begin anew, with an empty mirror and since=0.",
        errors=[{"parameter": "feed", "code": "feed_replaced", "detail": "The database is another one, …"}],
    ),
    422: wrong_parameter("wait", "less_than_equal", "wait must be between 0 and 60 (got 90)."),
    503: unavailable("too_many_waiting", "Too many clients wait for changes.", retry_after_seconds=5),
}
