"""Requests and responses of imports, with their examples."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from core.web.openapi import IMPORT_BYTES, Responses, answer, header, refusals, wrong_parameter
from core.web.problems import Conflict, Malformed, NotFound, TooLarge, Unavailable, UnsupportedType
from ingestion_api.bulk.batches import to_storable
from ingestion_api.bulk.schemas import BULK_BODY, ERROR_GROUP, ROW_ERROR, ErrorGroup, RowError
from ingestion_api.dependencies import BodyTimeout

# What a structured integer of HTTP can hold (RFC 9651).
_MOST_BYTES = 999_999_999_999_999


# An import that is deleted is not there any more.
VisibleState = Literal["receiving", "waiting", "running", "done", "failed"]


class UploadHeaders(BaseModel):
    """The upload's headers, as in draft-ietf-httpbis-resumable-upload."""

    upload_complete: Literal["?0", "?1"] | None = Field(
        None, description="`?0`: more of the body follows in further requests. `?1`: this is its end."
    )
    upload_length: int | None = Field(
        None, ge=0, le=_MOST_BYTES, description="Bytes of the whole body.", json_schema_extra=IMPORT_BYTES
    )

    @property
    def complete(self) -> bool | None:
        """Whether this request brings the end of the body; None: the client does not say."""
        return None if self.upload_complete is None else self.upload_complete == "?1"


class AppendHeaders(UploadHeaders):
    """The headers of a request that continues an upload."""

    upload_offset: int = Field(ge=0, le=_MOST_BYTES, description="Where in the body this request begins.")


class Upload(BaseModel):
    """How much of the body is stored, as it was sent."""

    offset: int = Field(description="Bytes that are stored: continue from here.")
    length: int | None = Field(description="Bytes of the whole body; null while unknown.")
    complete: bool


class Progress(BaseModel):
    """The progress of storing the rows."""

    rows: int = Field(description="The last row that is counted.")
    bytes: int = Field(description="Bytes of the body that were read.")
    bytes_total: int | None
    rows_per_second: float | None = Field(description="Since the start; null before the first row.")


class ImportSummary(BaseModel):
    """An import; its counts have the names of the bulk answer: accepted + duplicates + rejected = received."""

    id: UUID
    state: VisibleState
    media_type: str
    encoding: str
    parameters: dict[str, str]
    created_at: datetime
    received_at: datetime | None = Field(description="When the whole body was stored.")
    started_at: datetime | None
    finished_at: datetime | None
    upload: Upload
    progress: Progress
    received: int
    accepted: int
    duplicates: int
    rejected: int
    rejects_kept: int = Field(description="Rejected rows at /imports/{id}/rejects: the first ones.")
    problem: dict[str, Any] | None = Field(description="Why the import failed.")


class ImportRead(ImportSummary):
    """An import with the first rows that were rejected."""

    errors: list[RowError] = Field(description="The first 100; more are at /imports/{id}/rejects.")
    error_groups: list[ErrorGroup] = Field(
        description="Of the rejects that are kept: each reason once, the commonest first; 20 at most."
    )


class ImportList(BaseModel):
    """A page of imports, newest first."""

    items: list[ImportSummary]
    next_cursor: str | None


def import_fields(row: RowMapping) -> dict[str, Any]:
    """Return the fields of `ImportSummary` from a row of the table."""
    complete = row["received_at"] is not None
    length = row["upload_offset"] if complete else row["upload_length"]
    progress = {
        "rows": row["last_row"],
        "bytes": row["bytes_read"],
        "bytes_total": length,
        "rows_per_second": _rows_per_second(row),
    }
    return dict(row) | {
        "problem": to_storable(row["problem"]),  # what an older release has stored
        "upload": {"offset": row["upload_offset"], "length": length, "complete": complete},
        "progress": progress,
    }


def _rows_per_second(row: RowMapping) -> float | None:
    if not row["last_row"]:
        return None
    seconds = ((row["finished_at"] or row["now"]) - row["started_at"]).total_seconds()
    return round(row["last_row"] / seconds, 1) if seconds > 0 else None


_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"


def upload_state(offset: int, complete: str) -> dict[str, str]:
    """Return the headers with the number of stored bytes, and whether the upload is complete (`?1`, `?0`)."""
    return {"Upload-Offset": str(offset), "Upload-Complete": complete}


def upload_too_large(most: int) -> TooLarge:
    """Return the refusal of a body with more bytes than an import may have."""
    return TooLarge(f"The body of an import may have {most} bytes.", code="upload_too_large")


def inconsistent_length(detail: str) -> Malformed:
    """Return the refusal of a body whose length differs from the announced one."""
    kind = {"type": f"{_PROBLEM_TYPES}inconsistent-upload-length"}
    return Malformed(detail, code="inconsistent_upload_length", extra=kind)


def offset_mismatch(expected: int, provided: int) -> Conflict:
    """Return the refusal of a request that does not begin where the stored body ends."""
    return Conflict(
        f"{expected} bytes are stored; send what follows.",
        code="upload_offset_mismatch",
        headers=upload_state(expected, "?0"),
        extra={
            "type": f"{_PROBLEM_TYPES}mismatching-upload-offset",
            "expected-offset": expected,
            "provided-offset": provided,
        },
    )


def upload_completed(offset: int) -> Conflict:
    """Return the refusal of a request that adds to a body which is complete."""
    return Conflict(
        "The upload is complete; nothing can be added.",
        code="upload_completed",
        headers=upload_state(offset, "?1"),
        extra={"type": f"{_PROBLEM_TYPES}completed-upload"},
    )


_ID = "3f1c8b52-2f4e-4a57-9a53-0c1f6b7d2e90"

_LISTED: dict[str, Any] = {
    "id": _ID,
    "state": "running",
    "media_type": "application/x-ndjson",
    "encoding": "gzip",
    "parameters": {"on_error": "skip", "text": "comment_text", "metadata": "all"},
    "created_at": "2026-11-01T08:30:00.000000Z",
    "received_at": "2026-11-01T08:30:12.501200Z",
    "started_at": "2026-11-01T08:30:12.610400Z",
    "finished_at": None,
    "upload": {"offset": 524288000, "length": 524288000, "complete": True},
    "progress": {"rows": 1250000, "bytes": 131072000, "bytes_total": 524288000, "rows_per_second": 41250.3},
    "received": 1250000,
    "accepted": 1249000,
    "duplicates": 999,
    "rejected": 1,
    "rejects_kept": 1,
    "problem": None,
}
_IMPORT = _LISTED | {"errors": [ROW_ERROR], "error_groups": [ERROR_GROUP]}

_MISMATCH = offset_mismatch(16777216, 8388608)
_OFFSET = header("Bytes of the body that are stored.", "16777216")
_COMPLETE = header("`?1`: the whole body is stored.", "?0")
_LIMIT = header(
    "The longest body, and the seconds after which an upload without new data fails.",
    "max-size=107374182400, max-age=86400",
)
_LENGTH = header("Bytes of the whole body, if known.", "524288000")
_STATE = {"Upload-Offset": _OFFSET, "Upload-Complete": _COMPLETE}
_UPLOAD = _STATE | {"Upload-Length": _LENGTH, "Upload-Limit": _LIMIT}
_LOCATION = {"Location": header("The path of the import.", f"/imports/{_ID}")}

_NO_IMPORT = NotFound(f"There is no import {_ID}.")
_AWAY = Unavailable("The database is away.", code="database_unavailable")
_CUT = BodyTimeout(30, headers={"Location": f"/imports/{_ID}"})
_TOO_LARGE = upload_too_large(107374182400)
_INCONSISTENT = inconsistent_length("The upload is longer than the 100 bytes that were announced.")

_REFUSED: Responses = {
    **refusals(_NO_IMPORT, _AWAY, scope="ingest"),
    422: wrong_parameter("id", "uuid_parsing", "id must be a UUID (got 17)."),
}

# The body may be empty: it is then sent by PATCH.
IMPORT_BODY: dict[str, Any] = BULK_BODY
PART_BODY: dict[str, Any] = {
    "required": False,
    "content": {
        "application/partial-upload": {
            "schema": {"type": "string", "format": "binary"},
            "example": "the next bytes of the file",
        }
    },
}

IMPORT_MADE: Responses = {
    202: answer("The import.", _IMPORT, headers=_UPLOAD | _LOCATION),
    **refusals(
        _CUT,
        Conflict("The import is done already.", code="import_ended"),
        _TOO_LARGE,
        UnsupportedType("Send the body as Content-Type: application/x-ndjson or …"),
        _INCONSISTENT,
        _AWAY,
        scope="ingest",
    ),
    422: wrong_parameter("dataset", "unknown_dataset", "must be one of: toxicity"),
}

IMPORT_CONTINUED: Responses = {
    202: answer("The upload is complete.", _IMPORT, model=ImportRead, headers=_UPLOAD | _LOCATION),
    204: {"description": "This part is stored; more must follow.", "headers": _UPLOAD | _LOCATION},
    **refusals(_NO_IMPORT, _CUT, _TOO_LARGE, _INCONSISTENT, _MISMATCH, _AWAY, scope="ingest"),
    422: wrong_parameter("upload-offset", "missing", "upload-offset is required."),
}
IMPORT_CONTINUED[409] |= {"headers": _STATE}

IMPORTS_LISTED: Responses = {
    200: answer(
        "The imports.",
        {"items": [_LISTED], "next_cursor": "41"},
        headers={"Link": header("The next page.", '</imports?cursor=41>; rel="next"')},
    ),
    **refusals(_AWAY, scope="ingest"),
    422: wrong_parameter("limit", "less_than_equal", "limit must be between 1 and 1000 (got 5000)."),
}

IMPORT_READ: Responses = {200: answer("The import.", _IMPORT), **_REFUSED}
OFFSET_READ: Responses = {
    204: {"description": "The headers say how much is stored.", "headers": _UPLOAD},
    **_REFUSED,
}
IMPORT_DELETED: Responses = {204: {"description": "The import is deleted."}, **_REFUSED}

_REJECT = (
    '{"row":3,"code":"unknown_label","detail":"label \\"toxc\\" is not one of …",'
    '"fields":{"text":"a","label":"toxc"}}\n'
)
REJECTS_READ: Responses = {
    200: {
        "description": "A line for each rejected row that is kept: the first `rejects_kept` ones. `fields`: the "
        "row as it was read; null if it could not be read, is over 64 KiB, or a dataset redacts texts.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": _REJECT}},
    },
    **_REFUSED,
}
