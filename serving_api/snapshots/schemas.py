"""What answers about snapshots hold, and what OpenAPI says of them."""

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from core.web.openapi import (
    Responses,
    answer,
    header,
    key_refusals,
    problem,
    reference,
    unavailable,
    wrong_field,
    wrong_parameter,
)
from serving_api.snapshots.manifest import CARD, CROISSANT, SnapshotManifest
from serving_api.snapshots.manifest import MANIFEST as MANIFEST_FILE
from serving_api.snapshots.parameters import SnapshotCreate, SnapshotRewrite
from serving_api.texts.parameters import EXAMPLE_CURSOR
from serving_api.texts.schemas import EXAMPLE_ID

NextCursor = Annotated[str | None, Field(description="For the next page; null on the last one.")]


class SnapshotPage(BaseModel):
    """A page of snapshots."""

    items: list[SnapshotManifest]
    next_cursor: NextCursor


class DiffKind(StrEnum):
    """How a text differs; of two ways the first one here."""

    ADDED = "added"
    REMOVED = "removed"
    RELABELLED = "relabelled"
    MOVED = "moved"


class DiffItem(BaseModel):
    """A text that is not the same in both snapshots. Where it is not in one, its split there is null."""

    id: UUID
    change: DiffKind
    label_before: str | None
    label_after: str | None
    split_before: str | None
    split_after: str | None


class DiffPage(BaseModel):
    """What two snapshots differ in, and a page of the texts that do."""

    added: int = Field(description="Texts that only `b` has.")
    removed: int = Field(description="Texts that only `a` has.")
    relabelled: int = Field(description="Texts with another label in `b`.")
    moved: int = Field(description="Texts in another split in `b`; none, if seed and shares are the same.")
    items: list[DiffItem]
    next_cursor: NextCursor


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

_NOT_FOUND = problem(404, "snapshot_not_found", "There is no such snapshot, or file of it.")
_STORAGE_AWAY = unavailable("storage_unavailable", "The storage of the snapshots does not answer.", 5)
_ETAG = header("For If-None-Match.", f'"{_HASH[:32]}"')
_ASK_AGAIN = header("Caches must ask again.", "private, no-cache")
_HEADERS = {"ETag": _ETAG, "Cache-Control": _ASK_AGAIN}
_NOT_MODIFIED = {"description": "The client holds this answer already.", "headers": _HEADERS}
_BAD_QUERY = problem(400, "malformed_query", "The query string is not UTF-8.")
_NO_PARAMETERS = wrong_parameter("x", "extra_forbidden", "Extra inputs are not permitted")

CREATED: Responses = {
    200: answer(
        "The same request made it of this version before.", MANIFEST, model=SnapshotManifest, headers=_LOCATION
    ),
    201: answer("The snapshot is written.", MANIFEST, model=SnapshotManifest, headers=_LOCATION),
    400: problem(400, "malformed_json", "Invalid JSON: EOF while parsing a string at line 1 column 11."),
    **key_refusals("snapshot"),
    409: problem(409, "snapshot_exists", "There is a snapshot toxicity-2026-11 already, of version 91342 or …"),
    413: problem(413, "body_too_large", "The body is over 65536 bytes."),
    415: problem(415, "unsupported_media_type", "Send the body as Content-Type: application/json."),
    422: wrong_field("/splits", "value_error", "Value error, the shares add up to 0.9, not to 1"),
    503: unavailable("too_busy", "Another snapshot is being written.", retry_after_seconds=5),
}
_REFUSALS: Responses = {400: _BAD_QUERY, **key_refusals("read"), 503: _STORAGE_AWAY}
LIST: Responses = {
    200: answer(
        "The newest first.",
        {"items": [MANIFEST], "next_cursor": EXAMPLE_CURSOR},
        model=SnapshotPage,
        headers=_HEADERS | {"Link": header("Where the next page is.", f"</snapshots?cursor={EXAMPLE_CURSOR}>; …")},
    ),
    304: _NOT_MODIFIED,
    **_REFUSALS,
    409: problem(409, "invalid_cursor", "Not a cursor of this list: pass next_cursor unchanged."),
    422: wrong_parameter("limit", "less_than_equal", "limit must be between 1 and 1000 (got 5000)."),
}
ONE: Responses = {
    200: answer("The snapshot.", MANIFEST, model=SnapshotManifest, headers=_HEADERS),
    304: _NOT_MODIFIED,
    **_REFUSALS,
    404: _NOT_FOUND,
    422: _NO_PARAMETERS,
}

_FILE_HEADERS = {
    "ETag": header("SHA-256 of the file.", f'"{_HASH}"'),
    "Last-Modified": header("When the snapshot was made, or rewritten.", "Sat, 28 Nov 2026 14:00:00 GMT"),
    "Accept-Ranges": header("Parts of it can be asked for.", "bytes"),
}
_CONTENT_HEADERS = _FILE_HEADERS | {"Content-Disposition": header("A name for the file.", "attachment; …")}


def _file(media_type: str, schema: dict[str, Any], example: str, cached: str) -> Responses:
    """Describe a file that is sent whole or in part."""
    content = {media_type: {"schema": schema, "example": example}}
    caching = {"Cache-Control": header("How long caches may keep it.", cached)}
    content_range = {"Content-Range": header("Which part it is, of how much.", "bytes 0-1023/131072")}
    behind = {"Content-Range": header("How long the file is.", "bytes */131072")}
    return {
        200: {"description": "The file.", "content": content, "headers": _CONTENT_HEADERS | caching},
        206: {
            "description": "The part that Range asks for.",
            "content": content,
            "headers": _CONTENT_HEADERS | caching | content_range,
        },
        304: {"description": "The client holds it already.", "headers": _FILE_HEADERS | caching},
        **_REFUSALS,
        404: _NOT_FOUND,
        412: problem(412, "precondition_failed", 'If-Match names another version of the file; its ETag is "…".'),
        416: problem(416, "range_not_satisfiable", "The file has 131072 bytes.") | {"headers": behind},
        422: _NO_PARAMETERS,
    }


SPLIT = _file(
    "application/vnd.apache.parquet",
    {"type": "string", "format": "binary"},
    "PAR1…PAR1",
    "private, max-age=31536000, immutable",
)

_DOCUMENT_EXAMPLES = {
    CARD: "# toxicity-2026-11\n",
    CROISSANT: {"name": "toxicity-2026-11"},
    MANIFEST_FILE: MANIFEST,
}


def document(file: str, media_type: str) -> Responses:
    """Describe one of the documents beside the data."""
    example: Any = _DOCUMENT_EXAMPLES[file]
    schema = {"type": "string" if isinstance(example, str) else "object"}
    return _file(media_type, schema, example, "private, no-cache")


_DIFF_ITEM = {
    "id": EXAMPLE_ID,
    "change": "relabelled",
    "label_before": "toxic",
    "label_after": "non_toxic",
    "split_before": "train",
    "split_after": "train",
}
DIFF: Responses = {
    200: answer(
        "What they differ in.",
        {"added": 120, "removed": 2, "relabelled": 7, "moved": 0, "items": [_DIFF_ITEM], "next_cursor": None},
        model=DiffPage,
        headers=_HEADERS | {"Link": header("Where the next page is.", "<…>; …")},
    ),
    304: _NOT_MODIFIED,
    **_REFUSALS,
    404: _NOT_FOUND,
    409: problem(409, "invalid_cursor", "Not a cursor of this list: pass next_cursor unchanged."),
    422: wrong_parameter("limit", "less_than_equal", "limit must be between 1 and 10000 (got 50000)."),
}

DELETED: Responses = {
    204: {"description": "The snapshot is gone."},
    400: _BAD_QUERY,
    **key_refusals("admin"),
    404: _NOT_FOUND,
    422: _NO_PARAMETERS,
    503: unavailable("too_busy", "Another snapshot is being written.", retry_after_seconds=5),
}

REWRITE_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": reference(SnapshotRewrite), "example": {"without": [EXAMPLE_ID]}}},
}
REWRITTEN: Responses = {
    200: answer(
        "The snapshot as it is now.",
        MANIFEST | {"rewritten_at": "2026-11-28T15:00:00.120934Z"},
        model=SnapshotManifest,
        headers=_HEADERS,
    ),
    400: problem(400, "malformed_json", "Invalid JSON: EOF while parsing a string at line 1 column 11."),
    **key_refusals("admin"),
    404: _NOT_FOUND,
    413: problem(413, "body_too_large", "The body is over 1048576 bytes."),
    415: problem(415, "unsupported_media_type", "Send the body as Content-Type: application/json."),
    422: wrong_field("/without/0", "uuid_parsing", "Input should be a valid UUID"),
    503: unavailable("too_busy", "Another snapshot is being written.", retry_after_seconds=5),
}


class ForgottenFrom(BaseModel):
    """A snapshot that holds texts which were forgotten since."""

    name: str = Field(description="The snapshot.")
    ids: list[str] = Field(description="These texts, for `POST /snapshots/{name}/rewrite`.")


class ForgottenRead(BaseModel):
    """How far forgetting has come; of the process that answers."""

    version: int = Field(description="The replica's version: no query finds what was forgotten up to it.")
    traceless_below: int = Field(
        description="No file of replica, search index or exports holds what was forgotten in versions below."
    )
    snapshots: list[ForgottenFrom] = Field(description="Those that are to be rewritten.")


_FORGOTTEN_EXAMPLE = {
    "version": 91350,
    "traceless_below": 91351,
    "snapshots": [{"name": "toxicity-2026-11", "ids": ["5f3c1f7e-8a6f-8c15-9d3e-0b1f6a4f2d11"]}],
}
FORGOTTEN: Responses = {
    200: answer(
        "How far it has come.",
        _FORGOTTEN_EXAMPLE,
        model=ForgottenRead,
        headers={"Cache-Control": header("It may change at any moment.", "no-store")},
    ),
    400: problem(400, "malformed_query", "The query string is not UTF-8."),
    **key_refusals("admin"),
    422: wrong_parameter("x", "extra_forbidden", "Extra inputs are not permitted"),
    503: unavailable("replica_missing", "The replica is being built.", 5),
}
