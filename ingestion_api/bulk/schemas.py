"""The results of bulk uploads, and how OpenAPI describes their bodies and answers."""

from typing import Any

from pydantic import BaseModel, Field

from core.web.openapi import Responses, answer, problem, reference, refusals
from core.web.problems import Malformed, Problem, TooLarge, Unavailable, UnsupportedType
from ingestion_api.bulk.pipes import BodyTimeout
from ingestion_api.texts.schemas import TextCreate


class RowError(BaseModel):
    """Why one row of a bulk upload was rejected."""

    row: int = Field(description="1-based; blank lines count, a CSV header does not.")
    code: str
    detail: str


class ErrorGroup(BaseModel):
    """Rows that were rejected for the same reason."""

    code: str
    detail: str
    count: int
    rows: list[int] = Field(description="The first 5.")


class BulkResult(BaseModel):
    """The result of a bulk upload: accepted + duplicates + rejected = received."""

    received: int
    accepted: int
    duplicates: int
    rejected: int
    errors: list[RowError] = Field(description="The first 100.")
    error_groups: list[ErrorGroup] = Field(description="Each reason once, the commonest first; 20 at most.")


_ROWS = [{"text": "You are all idiots.", "label": "toxic"}, {"text": "Thanks!"}]
_TEXT_ROWS = {
    "application/x-ndjson": '{"text": "You are all idiots.", "label": "toxic"}\n{"text": "Thanks!"}\n',
    "application/jsonl": '{"text": "You are all idiots.", "label": "toxic"}\n{"text": "Thanks!"}\n',
    "text/csv": "text,label\nYou are all idiots.,toxic\nThanks!,\n",
    "text/tab-separated-values": "text\tlabel\nYou are all idiots.\ttoxic\nThanks!\t\n",
}
# The second kind of row: the API accepts any value as a row and rejects a bad one alone.
_ARRAY = {"type": "array", "items": {"anyOf": [reference(TextCreate), {"description": "Rejected, alone."}]}}
ROW_ERROR = {
    "row": 3,
    "code": "unknown_label",
    "detail": 'label "1" is not one of toxic, non_toxic; map it with label_map=1:toxic',
}
ERROR_GROUP = {"code": ROW_ERROR["code"], "detail": ROW_ERROR["detail"], "count": 1, "rows": [3]}
_COUNTS = {"received": 3, "accepted": 1, "duplicates": 1, "rejected": 1}
_NOTHING_STORED = {"received": 3, "accepted": 0, "duplicates": 0, "rejected": 1}


def _counting(refused: Problem, counts: dict[str, Any]) -> Problem:
    """Return a problem that carries the counts of the rows before it."""
    refused.extra = counts | {"errors": [ROW_ERROR]}
    return refused


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
    200: answer(
        "The counts of stored and rejected rows.",
        _COUNTS | {"errors": [ROW_ERROR], "error_groups": [ERROR_GROUP]},
    ),
    **refusals(
        _counting(Malformed("The body ends before its array does.", code="malformed_json"), _COUNTS),
        _counting(BodyTimeout("Nothing came for 30 seconds."), _COUNTS),
        _counting(TooLarge("A row is longer than 1048576 bytes.", code="row_too_large"), _COUNTS),
        UnsupportedType("Send the body as Content-Type: application/x-ndjson or …"),
        Unavailable("Too many bulk uploads are under way.", code="bulk_busy", retry_after_seconds=5),
        scope="ingest",
    ),
    422: problem(
        422,
        "rows_rejected",
        "1 rows were rejected; nothing is stored.",
        **_NOTHING_STORED,
        errors=[ROW_ERROR],
    ),
}
