"""What OpenAPI says of exports."""

from typing import Any

from core.web.openapi import Responses, header, key_refusals, problem, unavailable, wrong_parameter
from serving_api.exports.formats import ARROW, ARROW_STREAM, CSV, NDJSON, PARQUET, Format
from serving_api.texts.documentation import MALFORMED, NOT_MODIFIED, REPLICA_HEADERS

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
        422: wrong_parameter("min_agreement", "less_than_equal", "Input should be less than or equal to 1"),
        503: unavailable("too_busy", "Too many exports are under way.", retry_after_seconds=5),
    }


PARQUET_RESPONSES = _responses(PARQUET, _BINARY, "PAR1…PAR1")
ARROW_RESPONSES = _responses(ARROW, _BINARY, "ARROW1…ARROW1")
STREAM_RESPONSES = _responses(ARROW_STREAM, _BINARY, "\u00ff\u00ff\u00ff\u00ff…")
NDJSON_RESPONSES = _responses(NDJSON, _TEXT, _ITEM_LINE)
CSV_RESPONSES = _responses(CSV, _TEXT, _CSV_LINES)
