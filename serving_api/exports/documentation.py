"""What OpenAPI says of exports."""

from typing import Any

from core.web.openapi import Responses, header, key_refusals, problem, unavailable, wrong_parameter
from serving_api.exports.formats import ARROW, CSV, NDJSON, PARQUET, Format
from serving_api.texts.documentation import MALFORMED, NOT_MODIFIED, REPLICA_HEADERS

TITLES = {"parquet": "Parquet", "arrow": "an Arrow stream", "ndjson": "NDJSON"}

_COMMON = """Stream the chosen texts, all of one version, from the first row to the last.

Without `order` they come as they lie in the replica, roughly the oldest first. An export that is cut short ends
without the last chunk of its transfer encoding, which HTTP clients report as an error."""

DESCRIPTIONS = {
    "parquet": f"{_COMMON} `votes`, `metadata` and `enrichment` are JSON texts, times are UTC; zstd.",
    "arrow": f"{_COMMON} `votes`, `metadata` and `enrichment` are JSON texts, times are UTC.",
    "ndjson": f"{_COMMON} Each line is an item of `GET /texts`, without `highlights`.",
}

_ITEM_LINE = (
    '{"id":"5f0c6f5e-3c1b-8a43-9d8e-0b6a4b8f2d11","dataset":"toxicity","text":"you are an idiot","label":"toxic",'
    '"status":"labelled","agreement":0.75,"votes":{"toxic": 3, "non_toxic": 1},"annotations":4,"confidence":0.75,'
    '"rule":"majority","rule_version":1,"decided_by":"annotators","source":"forum","external_id":"post-17",'
    '"claimed_label":"toxic","score":0.91,"metadata":{"thread": 4},"enrichment":{},'
    '"received_at":"2026-11-01T08:30:00.000000Z","labelled_at":"2026-11-02T09:12:44.120934Z"}\n'
)
_CSV_LINES = (
    "id,dataset,text,label,status,agreement,votes,annotations,confidence,rule,rule_version,decided_by,source,"
    "external_id,claimed_label,score,metadata,enrichment,received_at,labelled_at\r\n"
    '"5f0c6f5e-3c1b-8a43-9d8e-0b6a4b8f2d11","toxicity","you are an idiot","toxic","labelled",0.75,'
    '"{""toxic"": 3, ""non_toxic"": 1}",4,0.75,"majority",1,"annotators","forum","post-17","toxic",0.91,'
    '"{""thread"": 4}","{}",2026-11-01T08:30:00.000000Z,2026-11-02T09:12:44.120934Z\r\n'
)
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
        422: wrong_parameter("min_agreement", "less_than_equal", "Input should be less than or equal to 1"),
        503: unavailable("too_busy", "Other exports are under way.", retry_after_seconds=5),
    }


EXPORTS = {
    "parquet": _responses(PARQUET, _BINARY, "PAR1…PAR1"),
    "arrow": _responses(ARROW, _BINARY, "\u00ff\u00ff\u00ff\u00ff…"),
    "ndjson": _responses(NDJSON, _TEXT, _ITEM_LINE),
    "csv": _responses(CSV, _TEXT, _CSV_LINES),
}
