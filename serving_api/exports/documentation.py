"""What OpenAPI says of exports."""

from typing import Any

import orjson

from core.web.openapi import Responses, header, key_refusals, problem, unavailable, wrong_parameter
from serving_api.columns import COLUMNS, EXAMPLE_ITEM, Kind, csv_header
from serving_api.exports.formats import ARROW, CSV, NDJSON, PARQUET, Format
from serving_api.texts.schemas import MALFORMED, NOT_MODIFIED, REPLICA_HEADERS

TITLES = {"parquet": "Parquet", "arrow": "an Arrow stream", "ndjson": "NDJSON"}

_COMMON = """Stream the chosen texts, all of one version, from the first row to the last.

Without `order` they come as they lie in the replica, roughly the oldest first. An export that is cut short ends
without the last chunk of its transfer encoding, which HTTP clients report as an error."""

DESCRIPTIONS = {
    "parquet": f"{_COMMON} `votes`, `metadata` and `enrichment` are JSON texts, times are UTC; zstd.",
    "arrow": f"{_COMMON} `votes`, `metadata` and `enrichment` are JSON texts, times are UTC.",
    "ndjson": f"{_COMMON} Each line is an item of `GET /texts`, without `highlights`.",
}

_ITEM_LINE = orjson.dumps(EXAMPLE_ITEM, option=orjson.OPT_APPEND_NEWLINE).decode()


def _csv_cell(name: str) -> str:
    value, kind = COLUMNS[name].example, COLUMNS[name].kind
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return '"' + text.replace('"', '""') + '"' if kind in {Kind.TEXT, Kind.JSON} else text


_CSV_LINES = f"{csv_header()}{','.join(map(_csv_cell, COLUMNS))}\r\n"
_TEXT: dict[str, Any] = {"type": "string"}
_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}

_HEADERS = REPLICA_HEADERS | {
    "ETag": header("For If-None-Match.", 'W/"9f86d081884c7d659a2feaa0c55ad015"'),
    "Content-Disposition": header("A name for the file.", 'attachment; filename="toxicity-91342.parquet"'),
}


def _responses(format_: Format, schema: dict[str, Any], example: str) -> Responses:
    return {
        200: {
            "description": "The file.",
            "content": {format_.media_type: {"schema": schema, "example": example}},
            "headers": _HEADERS,
        },
        304: NOT_MODIFIED,
        400: MALFORMED,
        **key_refusals("read"),
        409: problem(409, "unknown_label", "'spam' is not one of: toxic, non_toxic."),
        422: wrong_parameter("min_agreement", "less_than_equal", "min_agreement must be between 0 and 1 (got 8)."),
        503: unavailable("too_busy", "Other exports are under way.", retry_after_seconds=5),
    }


EXPORTS = {
    "parquet": _responses(PARQUET, _BINARY, "PAR1…PAR1"),
    "arrow": _responses(ARROW, _BINARY, "\u00ff\u00ff\u00ff\u00ff…"),
    "ndjson": _responses(NDJSON, _TEXT, _ITEM_LINE),
    "csv": _responses(CSV, _TEXT, _CSV_LINES),
}
