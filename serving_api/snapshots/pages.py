"""Pages of snapshots, and of what two of them differ in."""

import hashlib
from collections.abc import Sequence
from datetime import UTC
from enum import StrEnum
from typing import Annotated, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field

from core.web.problems import FieldError
from serving_api.snapshots.manifest import Manifest
from serving_api.snapshots.service import Snapshots
from serving_api.texts import cursor
from serving_api.texts.cursor import Position
from serving_api.texts.parameters import EXAMPLE_CURSOR, Cursor, Limit
from serving_api.texts.query import Mismatch

_LIST = b"snapshots"

NextCursor = Annotated[str | None, Field(description="For the next page; null on the last one.")]


class SnapshotsParameters(BaseModel):
    """Which page of the list of snapshots."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Limit = 100
    cursor: Cursor | None = Field(None, description="`next_cursor` of the page before.", examples=[EXAMPLE_CURSOR])


class DiffParameters(SnapshotsParameters):
    """Which page of what two snapshots differ in."""

    limit: int = Field(100, ge=1, le=10_000, description="Texts on a page at most.", examples=[100])


class SnapshotPage(BaseModel):
    """A page of snapshots."""

    items: list[Manifest]
    next_cursor: NextCursor


class Change(StrEnum):
    """How a text differs; of two ways the first one here."""

    ADDED = "added"
    REMOVED = "removed"
    RELABELLED = "relabelled"
    MOVED = "moved"


class DiffItem(BaseModel):
    """A text that is not the same in both snapshots. Where it is not in one, its split there is null."""

    id: UUID
    change: Change
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


def page_of(manifests: Sequence[Manifest], limit: int, after: str | None) -> SnapshotPage:
    """Return the first `limit` after the cursor's place, the newest first.

    Raises:
        Mismatch: it is not a cursor of this list.
    """
    found = sorted(manifests, key=_place, reverse=True)
    if after is not None:
        last = _position(after, _LIST)
        found = [one for one in found if _place(one) < (last.rank, last.id)]
    more = cursor.encode(Position(*_place(found[limit - 1])), _LIST) if len(found) > limit else None
    return SnapshotPage(items=found[:limit], next_cursor=more)


def diff_page(snapshots: Snapshots, a: str, b: str, parameters: DiffParameters) -> DiffPage:
    """Compare two snapshots.

    Raises:
        NotFound: there is no such snapshot.
        Mismatch: it is not a cursor of this list.
        Unavailable: others are being compared, or the storage does not answer.
    """
    before, after = snapshots.get(a), snapshots.get(b)
    list_ = hashlib.sha256(f"diff {before.content_hash} {after.content_hash}".encode()).digest()
    last = _position(parameters.cursor, list_).id if parameters.cursor else None
    found = snapshots.differ.compare(before, after, last, parameters.limit + 1)
    shown = [_item(row) for row in found.items[: parameters.limit]]
    more = cursor.encode(Position(0, shown[-1].id), list_) if len(found.items) > parameters.limit else None
    return DiffPage(**found._asdict() | {"items": shown, "next_cursor": more})


def _item(row: dict[str, Any]) -> DiffItem:
    if row["split_before"] is None:
        change = Change.ADDED
    elif row["split_after"] is None:
        change = Change.REMOVED
    elif row["label_before"] != row["label_after"]:
        change = Change.RELABELLED
    else:
        change = Change.MOVED
    return DiffItem(change=change, **row)


def _position(given: str, list_: bytes) -> Position:
    try:
        return cursor.decode(given, list_)
    except ValueError as error:
        detail = "Not a cursor of this list: pass next_cursor unchanged."
        raise Mismatch(FieldError("invalid_cursor", detail, parameter="cursor")) from error


def _place(manifest: Manifest) -> tuple[int, UUID]:
    created_at = manifest.created_at.astimezone(UTC).replace(tzinfo=None)
    return cursor.microseconds(created_at), uuid5(NAMESPACE_URL, manifest.name)
