"""What OpenAPI says of exports."""

from typing import Any

import orjson

from core.web.openapi import Responses, header, key_refusals, problem, unavailable, wrong_parameter
from serving_api.columns import COLUMNS, EXAMPLE_ITEM, Kind, csv_header
from serving_api.exports.formats import ARROW, ARROW_STREAM, CSV, NDJSON, PARQUET, Format
from serving_api.texts.schemas import MALFORMED, NOT_MODIFIED, REPLICA_HEADERS

_ITEM_LINE = orjson.dumps(EXAMPLE_ITEM, option=orjson.OPT_APPEND_NEWLINE).decode()


def _csv_cell(name: str) -> str:
    value, kind = COLUMNS[name].example, COLUMNS[name].kind
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return '"' + text.replace('"', '""') + '"' if kind in {Kind.TEXT, Kind.JSON} else text


_CSV_LINES = f"{csv_header()}{','.join(map(_csv_cell, COLUMNS))}\r\n"
_ETAG = '"9f86d081884c7d659a2feaa0c55ad015-5d41402abc4b2a76"'
_HEADERS = REPLICA_HEADERS | {
    "ETag": header("For If-None-Match, If-Match and If-Range.", _ETAG),
    "Accept-Ranges": header("Parts of the file may be asked for.", "bytes"),
    "Content-Disposition": header("A name for the file.", 'attachment; filename="toxicity-91342.parquet"'),
}
_PART_HEADERS = _HEADERS | {"Content-Range": header("Which part it is.", "bytes 0-65535/131072")}
_TEXT: dict[str, Any] = {"type": "string"}
_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}


def _responses(format_: Format, schema: dict[str, Any], example: str) -> Responses:
    content = {format_.media_type: {"schema": schema, "example": example}}
    return {
        200: {"description": "The file.", "content": content, "headers": _HEADERS},
        206: {"description": "The part that `Range` asks for.", "content": content, "headers": _PART_HEADERS},
        304: NOT_MODIFIED,
        400: MALFORMED,
        **key_refusals("read"),
        409: problem(409, "unknown_label", "'spam' is not one of: toxic, non_toxic."),
        412: problem(
            412, "precondition_failed", f"If-Match names another version of the file; its ETag is {_ETAG}."
        ),
        416: problem(416, "range_not_satisfiable", "The file has 131072 bytes."),
        422: wrong_parameter("min_agreement", "less_than_equal", "min_agreement must be between 0 and 1 (got 8)."),
        503: unavailable("too_busy", "Too many exports are under way.", retry_after_seconds=5),
    }


PARQUET_RESPONSES = _responses(PARQUET, _BINARY, "PAR1…PAR1")
ARROW_RESPONSES = _responses(ARROW, _BINARY, "ARROW1…ARROW1")
STREAM_RESPONSES = _responses(ARROW_STREAM, _BINARY, "\u00ff\u00ff\u00ff\u00ff…")
NDJSON_RESPONSES = _responses(NDJSON, _TEXT, _ITEM_LINE)
CSV_RESPONSES = _responses(CSV, _TEXT, _CSV_LINES)
