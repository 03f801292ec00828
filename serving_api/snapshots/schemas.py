"""The responses about snapshots: their models, and the headers and refusals that OpenAPI documents."""

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from core.web.openapi import Responses, header, reference, refusals, with_example
from core.web.problems import (
    Conflict,
    FieldError,
    InvalidFields,
    Malformed,
    Problem,
    TooLarge,
    Unavailable,
    UnsupportedType,
)
from serving_api.file_response import describe_file
from serving_api.snapshots.manifest import CARD, CROISSANT, MANIFEST, MANIFEST_EXAMPLE, SnapshotManifest
from serving_api.snapshots.parameters import BODY_BYTES, REWRITE_BYTES, SnapshotCreate, SnapshotRewrite
from serving_api.snapshots.storage import no_snapshot
from serving_api.texts.parameters import EXAMPLE_CURSOR
from serving_api.texts.query import Mismatch
from serving_api.texts.schemas import EXAMPLE_ID, wrong_parameter

NextCursor = Annotated[str | None, Field(description="For the next page; null on the last one.")]


class SnapshotPage(BaseModel):
    """A page of snapshots."""

    model_config = with_example({"items": [MANIFEST_EXAMPLE], "next_cursor": EXAMPLE_CURSOR})

    items: list[SnapshotManifest]
    next_cursor: NextCursor


class DiffKind(StrEnum):
    """How a text differs; if two apply, the first one here."""

    ADDED = "added"
    REMOVED = "removed"
    RELABELLED = "relabelled"
    MOVED = "moved"


class DiffItem(BaseModel):
    """A text that differs between two snapshots. Its split is null in a snapshot that does not contain it."""

    id: UUID
    change: DiffKind
    label_before: str | None
    label_after: str | None
    split_before: str | None
    split_after: str | None


_ITEM_EXAMPLE = {
    "id": EXAMPLE_ID,
    "change": "relabelled",
    "label_before": "toxic",
    "label_after": "non_toxic",
    "split_before": "train",
    "split_after": "train",
}
_DIFF_EXAMPLE: dict[str, Any] = {
    "added": 120,
    "removed": 2,
    "relabelled": 7,
    "moved": 0,
    "items": [_ITEM_EXAMPLE],
    "next_cursor": None,
}


class DiffPage(BaseModel):
    """The differences of two snapshots: their numbers, and a page of the texts that differ."""

    model_config = with_example(_DIFF_EXAMPLE)

    added: int = Field(description="Texts that only `b` has.")
    removed: int = Field(description="Texts that only `a` has.")
    relabelled: int = Field(description="Texts with another label in `b`.")
    moved: int = Field(description="Texts in another split in `b`; 0 if seed and shares are the same.")
    items: list[DiffItem]
    next_cursor: NextCursor


class ForgottenFrom(BaseModel):
    """A snapshot that contains texts that were forgotten later."""

    name: str = Field(description="The snapshot.")
    ids: list[str] = Field(description="These texts, for `POST /snapshots/{name}/rewrite`.")


_FORGOTTEN_EXAMPLE: dict[str, Any] = {
    "version": 91350,
    "traceless_below": 91351,
    "snapshots": [{"name": "toxicity-2026-11", "ids": ["5f3c1f7e-8a6f-8c15-9d3e-0b1f6a4f2d11"]}],
}


class ForgottenRead(BaseModel):
    """The progress of forgetting in the process that answers."""

    model_config = with_example(_FORGOTTEN_EXAMPLE)

    version: int = Field(description="The replica's version: no query finds texts that were forgotten up to it.")
    traceless_below: int = Field(
        description="No file of replica, search index or exports contains texts forgotten in versions below."
    )
    snapshots: list[ForgottenFrom] = Field(description="The snapshots that you must rewrite.")


def _body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": reference(model), "example": example}}}


BODY = _body(
    SnapshotCreate, {"name": "toxicity-2026-11", "splits": {"train": 0.8, "validation": 0.1, "test": 0.1}}
)
REWRITE_BODY = _body(SnapshotRewrite, {"without": [EXAMPLE_ID]})

_HASH = MANIFEST_EXAMPLE["content_hash"]
_ETAG = {"ETag": header("For If-None-Match.", f'"{_HASH[:32]}"')}
_HEADERS = _ETAG | {"Cache-Control": header("Caches must ask again.", "private, no-cache")}
_LOCATION = {"Location": header("The address of the snapshot.", "/snapshots/toxicity-2026-11")}

_BAD_QUERY = Malformed("The query string is not UTF-8.", code="malformed_query")
_NO_PARAMETERS = wrong_parameter("x", "extra_forbidden", "x is not a parameter of this path.")
_CURSOR = Mismatch("cursor", "invalid_cursor", "Not a cursor of this list: pass next_cursor unchanged.")
_AWAY = Unavailable(
    "The storage of the snapshots does not answer.", code="storage_unavailable", retry_after_seconds=5
)
_BUSY = Unavailable("Another snapshot is being written.", code="too_busy", retry_after_seconds=5)
_TYPE = UnsupportedType("Send the body as Content-Type: application/json.")
_EXISTS = Conflict("There is a snapshot toxicity-2026-11 already, of version 91342 or …", code="snapshot_exists")


def _bad_json(limit: int, pointer: str, code: str, detail: str) -> tuple[Problem, ...]:
    """Return the refusals of a JSON body of at most `limit` bytes, with one of a field of it."""
    malformed = "Invalid JSON: EOF while parsing a string at line 1 column 11."
    return (
        Malformed(malformed, code="malformed_json"),
        TooLarge(f"The body is over {limit} bytes."),
        _TYPE,
        InvalidFields([FieldError(code, detail, pointer=pointer)]),
    )


def _sends(description: str, headers: dict[str, Any]) -> Responses:
    return {200: {"description": description, "headers": headers}}


def _reads(description: str, link: str, *problems: Problem) -> Responses:
    """Describe a JSON answer with an ETag, and with a Link if it has pages."""
    headers = _HEADERS | ({"Link": header("The next page.", link)} if link else {})
    unchanged = {304: {"description": "The client holds this answer already.", "headers": _HEADERS}}
    return _sends(description, headers) | unchanged | refusals(_BAD_QUERY, _AWAY, *problems, scope="read")


def _limit(most: int, got: int) -> Problem:
    return wrong_parameter("limit", "less_than_equal", f"limit must be between 1 and {most} (got {got}).")


CREATED: Responses = {
    200: {
        "description": "The same request made it of this version before.",
        "model": SnapshotManifest,
        "headers": _LOCATION,
    },
    201: {"description": "The snapshot is written.", "headers": _LOCATION},
    **refusals(
        *_bad_json(BODY_BYTES, "/splits", "value_error", "Value error, the shares add up to 0.9, not to 1"),
        *(_EXISTS, _BUSY),
        scope="snapshot",
    ),
}
LIST = _reads("The newest first.", f"</snapshots?cursor={EXAMPLE_CURSOR}>; …", _CURSOR, _limit(1000, 5000))
ONE = _reads("The snapshot.", "", no_snapshot(), _NO_PARAMETERS)
DIFF = _reads("The differences.", "<…>; …", no_snapshot(), _CURSOR, _limit(10_000, 50_000))
DELETED: Responses = {
    204: {"description": "The snapshot is gone."},
    **refusals(_BAD_QUERY, no_snapshot(), _NO_PARAMETERS, _BUSY, scope="admin"),
}
REWRITTEN = _sends("The snapshot as it is now.", _HEADERS) | refusals(
    *_bad_json(REWRITE_BYTES, "/without/0", "uuid_parsing", "must be a UUID"),
    *(no_snapshot(), _BUSY),
    scope="admin",
)
_MISSING = Unavailable("The replica is being built.", code="replica_missing", retry_after_seconds=5)
FORGOTTEN = _sends(
    "The progress.", {"Cache-Control": header("It may change at any time.", "no-store")}
) | refusals(_BAD_QUERY, _NO_PARAMETERS, _MISSING, scope="admin")


def _file(media_type: str, schema: dict[str, Any], example: Any, cached: str) -> Responses:
    changed = "The time of the snapshot, or of its last rewrite."
    headers = {
        "ETag": header("SHA-256 of the file.", f'"{_HASH}"'),
        "Last-Modified": header(changed, "Sat, 28 Nov 2026 14:00:00 GMT"),
        "Cache-Control": header("How long caches may keep it.", cached),
    }
    return describe_file(media_type, schema, example, headers, no_snapshot(), _NO_PARAMETERS, _AWAY)


_OBJECT, _STRING = {"type": "object"}, {"type": "string"}
_IMMUTABLE, _REVALIDATED = "private, max-age=31536000, immutable", "private, no-cache"

SPLIT = _file("application/vnd.apache.parquet", _STRING | {"format": "binary"}, "PAR1…PAR1", _IMMUTABLE)
DOCUMENTS: dict[str, Responses] = {
    CARD: _file("text/markdown", _STRING, "# toxicity-2026-11\n", _REVALIDATED),
    CROISSANT: _file("application/json", _OBJECT, {"name": "toxicity-2026-11"}, _REVALIDATED),
    MANIFEST: _file("application/json", _OBJECT, MANIFEST_EXAMPLE, _REVALIDATED),
}
