"""What OpenAPI says of snapshots."""

from typing import Any

from core.openapi import Responses, answer, header, key_refusals, problem, reference, unavailable, wrong_field
from serving_api.snapshots.manifest import Manifest
from serving_api.snapshots.request import SnapshotCreate

_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_SPLITS = {
    name: {
        "path": f"data/{name}.parquet",
        "rows": rows,
        "bytes": rows * 160,
        "sha256": _HASH,
        "labels": {"non_toxic": rows - rows // 3, "toxic": rows // 3},
    }
    for name, rows in (("train", 800), ("validation", 100), ("test", 100))
}
MANIFEST: dict[str, Any] = {
    "name": "toxicity-2026-11",
    "created_at": "2026-11-28T14:00:00.120934Z",
    "dataset": "toxicity",
    "version": 91342,
    "content_hash": _HASH,
    "seed": 0,
    "shares": {"train": 0.8, "validation": 0.1, "test": 0.1},
    "stratified": False,
    "filters": {"min_agreement": 0.8},
    "splits": _SPLITS,
    "feed": "9f86d081884c7d65",
    "follows": [],
    "rewritten_at": None,
    "forgotten": 0,
}
_BODY_EXAMPLE = {"name": "toxicity-2026-11", "splits": {"train": 0.8, "validation": 0.1, "test": 0.1}}
BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": reference(SnapshotCreate), "example": _BODY_EXAMPLE}},
}
_LOCATION = {"Location": header("Where it is.", "/snapshots/toxicity-2026-11")}

CREATED: Responses = {
    200: answer("The same request made it of this version before.", MANIFEST, model=Manifest, headers=_LOCATION),
    201: answer("The snapshot is written.", MANIFEST, model=Manifest, headers=_LOCATION),
    400: problem(400, "malformed_json", "Invalid JSON: EOF while parsing a string at line 1 column 11."),
    **key_refusals("read"),
    409: problem(409, "snapshot_exists", "There is a snapshot toxicity-2026-11 already, of version 91342 or …"),
    413: problem(413, "body_too_large", "The body is over 65536 bytes."),
    415: problem(415, "unsupported_media_type", "Send the body as Content-Type: application/json."),
    422: wrong_field("/splits", "value_error", "the shares add up to 0.9, not to 1"),
    503: unavailable("too_busy", "Another snapshot is being written.", retry_after_seconds=5),
}
