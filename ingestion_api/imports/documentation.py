"""What OpenAPI says of imports, with an example of each answer."""

from typing import Any

from core.web.openapi import Responses, answer, header, key_refusals, problem, unavailable, wrong_parameter
from ingestion_api.bulk.schemas import BULK_BODY
from ingestion_api.imports.schemas import PREVIEW_EXAMPLE, ImportRead

_ID = "3f1c8b52-2f4e-4a57-9a53-0c1f6b7d2e90"
_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"
_ROW_ERROR = {
    "row": 3,
    "code": "unknown_label",
    "detail": 'label "1" is not one of toxic, non_toxic; map it with label_map=1:toxic',
}

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
_ERROR_GROUP = {"code": _ROW_ERROR["code"], "detail": _ROW_ERROR["detail"], "count": 1, "rows": [3]}
_IMPORT = _LISTED | {"errors": [_ROW_ERROR], "error_groups": [_ERROR_GROUP]}

_OFFSET = header("Bytes of the body that are stored.", "16777216")
_COMPLETE = header("`?1`: the whole body is stored.", "?0")
_LIMIT = header(
    "The longest body; for how many seconds an upload may rest.", "max-size=107374182400, max-age=86400"
)
_LENGTH = header("Bytes of the whole body, if they are known.", "524288000")
_STATE = {"Upload-Offset": _OFFSET, "Upload-Complete": _COMPLETE}
_UPLOAD = _STATE | {"Upload-Length": _LENGTH, "Upload-Limit": _LIMIT}
_LOCATION = {"Location": header("Where the import is.", f"/imports/{_ID}")}

_NO_IMPORT = problem(404, "not_found", f"There is no import {_ID}.")
_NO_ID = wrong_parameter("id", "uuid_parsing", "id must be a UUID (got 17).")
_AWAY = unavailable("database_unavailable", "The database is away.")
_ENDED = problem(409, "import_ended", "The import is done already.")
_CUT = problem(408, "body_timeout", "Nothing came for 30 seconds.") | {"headers": _LOCATION}
_TOO_LARGE = problem(413, "upload_too_large", "The body of an import may have 107374182400 bytes.")
_INCONSISTENT = problem(
    400,
    "inconsistent_upload_length",
    "The upload is longer than the 100 bytes that were announced.",
    type=f"{_PROBLEM_TYPES}inconsistent-upload-length",
)

# The body may be empty: it is then sent by PATCH.
IMPORT_BODY: dict[str, Any] = BULK_BODY
PART_BODY: dict[str, Any] = {
    "required": False,
    "content": {"application/partial-upload": {"schema": {"type": "string", "format": "binary"}}},
}

IMPORT_MADE: Responses = {
    202: answer("The import.", _IMPORT, headers=_UPLOAD | _LOCATION),
    400: _INCONSISTENT,
    **key_refusals("ingest"),
    408: _CUT,
    409: _ENDED,
    413: _TOO_LARGE,
    415: problem(415, "unsupported_media_type", "Send the body as Content-Type: application/x-ndjson or …"),
    422: wrong_parameter("dataset", "unknown_dataset", "must be one of: toxicity"),
    503: _AWAY,
}

IMPORT_PREVIEWED: Responses = {
    200: answer("How the body would be read.", PREVIEW_EXAMPLE),
    400: problem(400, "malformed_json", "The body is not a JSON array. Send one object a line …"),
    **key_refusals("ingest"),
    408: problem(408, "body_timeout", "Nothing came for 30 seconds."),
    413: problem(413, "preview_too_large", "To read Parquet or .xlsx takes the whole file …"),
    415: problem(415, "unsupported_media_type", "Send the body as Content-Type: application/x-ndjson or …"),
    422: wrong_parameter("dataset", "unknown_dataset", "must be one of: toxicity"),
    503: unavailable("bulk_busy", "Too many bulk uploads are under way.", 5),
}

IMPORT_CONTINUED: Responses = {
    202: answer("The upload is complete.", _IMPORT, model=ImportRead, headers=_UPLOAD | _LOCATION),
    204: {"description": "It is stored; more is to come.", "headers": _UPLOAD | _LOCATION},
    400: _INCONSISTENT,
    **key_refusals("ingest"),
    404: _NO_IMPORT,
    408: _CUT,
    409: problem(
        409,
        "upload_offset_mismatch",
        "16777216 bytes are stored; send what follows.",
        type=f"{_PROBLEM_TYPES}mismatching-upload-offset",
        **{"expected-offset": 16777216, "provided-offset": 8388608},
    )
    | {"headers": _STATE},
    413: _TOO_LARGE,
    422: wrong_parameter("upload-offset", "missing", "Field required"),
    503: _AWAY,
}

IMPORTS_LISTED: Responses = {
    200: answer(
        "The imports.",
        {"items": [_LISTED], "next_cursor": "41"},
        headers={"Link": header("The next page.", '</imports?cursor=41>; rel="next"')},
    ),
    **key_refusals("ingest"),
    422: wrong_parameter("limit", "less_than_equal", "limit must be between 1 and 1000 (got 5000)."),
    503: _AWAY,
}

IMPORT_READ: Responses = {
    200: answer("The import.", _IMPORT),
    **key_refusals("ingest"),
    404: _NO_IMPORT,
    422: _NO_ID,
    503: _AWAY,
}

OFFSET_READ: Responses = {
    204: {"description": "How much is stored.", "headers": _UPLOAD},
    **key_refusals("ingest"),
    404: _NO_IMPORT,
    422: _NO_ID,
    503: _AWAY,
}

IMPORT_DELETED: Responses = {
    204: {"description": "It is gone."},
    **key_refusals("ingest"),
    404: _NO_IMPORT,
    422: _NO_ID,
    503: _AWAY,
}

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
    **key_refusals("ingest"),
    404: _NO_IMPORT,
    422: _NO_ID,
    503: _AWAY,
}
