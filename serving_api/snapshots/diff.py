"""Compares snapshots with one another and with the texts forgotten since, and cuts lists of them into pages."""

import hashlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC
from tempfile import TemporaryDirectory
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import duckdb
import pyarrow as pa
from pyarrow import compute as pc

from core.web.problems import NotFound, Unavailable
from core.web.rate_limits import Places, current_client
from serving_api.changes.service import feed_of
from serving_api.replica.file import open_memory
from serving_api.replica.replica import Replica
from serving_api.settings import ReplicaSettings
from serving_api.snapshots.manifest import SnapshotManifest
from serving_api.snapshots.parameters import DiffParameters
from serving_api.snapshots.repository import Difference, compare, list_forgotten, load_compared
from serving_api.snapshots.schemas import DiffItem, DiffKind, DiffPage, SnapshotPage
from serving_api.snapshots.storage import Storage
from serving_api.texts.query import Mismatch, Position, decode_cursor, encode_cursor, microseconds
from serving_api.watchdog import Crew

_LIMITS = ReplicaSettings(memory_limit="512MB", threads=1)
_FIRST = UUID(int=0)


class Differ:
    """Runs a bounded number of comparisons in parallel, each within a time limit."""

    def __init__(self, storage: Storage, places: Places, crew: Crew, seconds: float) -> None:
        self._storage = storage
        self._places = places
        self._crew = crew
        self._seconds = seconds

    def compare(
        self, before: SnapshotManifest, after: SnapshotManifest, last: UUID | None, limit: int
    ) -> Difference:
        """Return how `after` differs from `before`, with the first `limit` texts above the id `last`.

        Raises:
            NotFound: a file of one is gone.
            ShareExceeded: this client runs as many comparisons as one client may.
            Unavailable: too many comparisons run, it took too long, or the storage does not answer.
        """
        until = time.monotonic() + self._seconds
        try:
            # The database writes into the folder if its memory is short.
            with (
                self._places.hold(current_client()),
                TemporaryDirectory(prefix="diff-") as folder,
                open_memory(_LIMITS, folder) as database,
                self._crew.working(until, database.interrupt),
            ):
                load_compared(database, "before", self._read(before))
                load_compared(database, "after", self._read(after))
                return compare(database, last or _FIRST, limit)
        except duckdb.InterruptException as error:
            raise Unavailable(
                "The comparison took too long.", code="query_timeout", retry_after_seconds=60
            ) from error

    def _read(self, manifest: SnapshotManifest) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
        for name, split in manifest.splits.items():
            yield name, self._storage.batches(manifest.name, split.path, ["id", "label"])


_LIST = b"snapshots"


def page_of(manifests: Sequence[SnapshotManifest], limit: int, after: str | None) -> SnapshotPage:
    """Return the first `limit` snapshots after the cursor, the newest first.

    Raises:
        Mismatch: it is not a cursor of this list.
    """
    found = sorted(manifests, key=_place, reverse=True)
    if after is not None:
        last = _position(after, _LIST)
        found = [one for one in found if _place(one) < (last.rank, last.id)]
    more = encode_cursor(Position(*_place(found[limit - 1])), _LIST) if len(found) > limit else None
    return SnapshotPage(items=found[:limit], next_cursor=more)


def diff_page(
    differ: Differ, before: SnapshotManifest, after: SnapshotManifest, parameters: DiffParameters
) -> DiffPage:
    """Compare two snapshots.

    Raises:
        NotFound: a file of one is gone.
        Mismatch: it is not a cursor of this list.
        Unavailable: too many comparisons run, or the storage does not answer.
    """
    list_ = hashlib.sha256(f"diff {before.content_hash} {after.content_hash}".encode()).digest()
    last = _position(parameters.cursor, list_).id if parameters.cursor else None
    found = differ.compare(before, after, last, parameters.limit + 1)
    shown = [_item(row) for row in found.items[: parameters.limit]]
    more = encode_cursor(Position(0, shown[-1].id), list_) if len(found.items) > parameters.limit else None
    return DiffPage(**found._asdict() | {"items": shown, "next_cursor": more})


def _item(row: dict[str, Any]) -> DiffItem:
    if row["split_before"] is None:
        change = DiffKind.ADDED
    elif row["split_after"] is None:
        change = DiffKind.REMOVED
    elif row["label_before"] != row["label_after"]:
        change = DiffKind.RELABELLED
    else:
        change = DiffKind.MOVED
    return DiffItem(change=change, **row)


def _position(given: str, list_: bytes) -> Position:
    try:
        return decode_cursor(given, list_)
    except ValueError as error:
        detail = "Not a cursor of this list: pass next_cursor unchanged."
        raise Mismatch("cursor", "invalid_cursor", detail) from error


def _place(manifest: SnapshotManifest) -> tuple[int, UUID]:
    created_at = manifest.created_at.astimezone(UTC).replace(tzinfo=None)
    return microseconds(created_at), uuid5(NAMESPACE_URL, manifest.name)


class Forgotten:
    """Finds forgotten texts in snapshots by their ids; looks for those of each version once in each snapshot."""

    def __init__(self, replica: Replica, storage: Storage) -> None:
        self._replica = replica
        self._storage = storage
        self._lock = threading.Lock()
        # By content hash: the last version that was looked at, and the ids that were found.
        self._seen: dict[str, tuple[int, frozenset[UUID]]] = {}

    def mark(self, manifest: SnapshotManifest) -> SnapshotManifest:
        """Return the manifest with the number of forgotten texts that the snapshot contains.

        Raises:
            NotFound: a file of it is gone.
            Unavailable: the storage does not answer.
        """
        return manifest.model_copy(update={"forgotten": len(self.find(manifest))})

    def find_in(self, manifests: Iterable[SnapshotManifest]) -> Iterator[tuple[SnapshotManifest, frozenset[UUID]]]:
        """Yield the snapshots that still exist, each with the forgotten texts that it contains."""
        for manifest in manifests:
            with suppress(NotFound):  # deleted
                try:
                    found = self.find(manifest)
                except NotFound:  # rewritten since, or deleted
                    found = self.find(self._storage.get(manifest.name))
                yield manifest, found

    def find(self, manifest: SnapshotManifest) -> frozenset[UUID]:
        """Return the forgotten texts that a snapshot contains; raises as `mark` does."""
        state = self._replica.state
        newest = self._replica.forgotten
        if state is None:
            return frozenset()
        # A snapshot has no text that was forgotten before its version. Versions of two feeds are not comparable.
        first = manifest.version if manifest.feed == feed_of(state.identity) else 0
        with self._lock:
            seen, found = self._seen.get(manifest.content_hash, (first, frozenset()))
        if newest <= seen:
            return found
        with self._replica.reading() as cursor:
            ids = list_forgotten(cursor, manifest.dataset, seen, newest)
        if ids:
            found |= self._look_up(manifest, ids)
        with self._lock:
            self._seen[manifest.content_hash] = (newest, found)
        return found

    def _look_up(self, manifest: SnapshotManifest, ids: Collection[UUID]) -> frozenset[UUID]:
        wanted = pa.array(sorted(map(str, ids)), pa.string())
        found: set[UUID] = set()
        for split in manifest.splits.values():
            for batch in self._storage.batches(manifest.name, split.path, ["id"]):
                column = batch.column("id")
                found |= {UUID(id_) for id_ in column.filter(pc.is_in(column, wanted)).to_pylist()}
        return frozenset(found)
