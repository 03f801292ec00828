"""Compares two snapshots, and cuts lists of snapshots and of differences into pages."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

import duckdb
import pyarrow as pa
from pyarrow import parquet

from core.web.problems import FieldError, Unavailable
from core.web.rate_limits import Places, current_client
from serving_api.replica.file import open_memory
from serving_api.settings import ReplicaSettings
from serving_api.snapshots.manifest import SnapshotManifest
from serving_api.snapshots.parameters import DiffParameters
from serving_api.snapshots.schemas import DiffItem, DiffKind, DiffPage, SnapshotPage
from serving_api.snapshots.storage import Storage, reaching_storage
from serving_api.texts.query import Mismatch, Position, decode_cursor, encode_cursor, microseconds
from serving_api.watchdog import Crew

_ROWS_AT_ONCE = 65_536
_MEMORY_LIMIT = "512MB"

_TOTALS = """
    select count(*) filter (before.id is null), count(*) filter (after.id is null),
           count(*) filter (before.id = after.id and before.label is distinct from after.label),
           count(*) filter (before.split <> after.split)
    from before full join after on before.id = after.id
"""
_ITEMS = """
    select coalesce(before.id, after.id) as id, before.label as label_before, after.label as label_after,
           before.split as split_before, after.split as split_after
    from before full join after on before.id = after.id
    where (before.id is null or after.id is null or before.label is distinct from after.label
           or before.split <> after.split) and coalesce(before.id, after.id) > ?
    order by 1 limit ?
"""
_FIRST = UUID(int=0)
_INTERRUPT_SECONDS = 0.1


class Difference(NamedTuple):
    """How many texts differ in which way, and a page of them, by id."""

    added: int
    removed: int
    relabelled: int
    moved: int
    items: list[dict[str, Any]]


class Differ:
    """Compares a bounded number of snapshots at once, each within a time limit."""

    def __init__(self, storage: Storage, places: Places, crew: Crew, seconds: float) -> None:
        self._storage = storage
        self._places = places
        self._crew = crew
        self._seconds = seconds

    def compare(
        self, before: SnapshotManifest, after: SnapshotManifest, last: UUID | None, limit: int
    ) -> Difference:
        """Return what is other in `after` than in `before`: the first `limit` texts behind the id `last`.

        Raises:
            NotFound: a file of one is gone.
            ShareExceeded: the client compares as many as one may.
            Unavailable: others are being compared, it took too long, or the storage does not answer.
        """
        until = time.monotonic() + self._seconds
        with self._places.hold(current_client()), self._crew.working(until):
            try:
                with _database() as database, _interrupted(database, until):
                    return self._compare(database, (before, after), last or _FIRST, limit)
            except duckdb.InterruptException as error:
                raise Unavailable(
                    "The comparison took too long.", code="query_timeout", retry_after_seconds=60
                ) from error

    def _compare(
        self,
        database: duckdb.DuckDBPyConnection,
        compared: tuple[SnapshotManifest, SnapshotManifest],
        last: UUID,
        limit: int,
    ) -> Difference:
        for table, manifest in zip(("before", "after"), compared, strict=True):
            self._load(database, table, manifest)
        added, removed, relabelled, moved = database.execute(_TOTALS).fetchall()[0]
        rows = database.execute(_ITEMS, [last, limit]).to_arrow_table().to_pylist()
        return Difference(added, removed, relabelled, moved, rows)

    def _load(self, database: duckdb.DuckDBPyConnection, table: str, manifest: SnapshotManifest) -> None:
        database.execute(f"create table {table} (id uuid, label varchar, split varchar)")
        for name, split in manifest.splits.items():
            with self._storage.open(manifest.name, split.path) as file:
                for batch in _batches(file):
                    database.register("incoming", pa.Table.from_batches([batch]))
                    database.execute(f"insert into {table} select id::uuid, label, ? from incoming", [name])  # noqa: S608
                    database.unregister("incoming")


def _batches(file: Any) -> Iterator[pa.RecordBatch]:
    with reaching_storage():
        yield from parquet.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=["id", "label"])


@contextmanager
def _interrupted(database: duckdb.DuckDBPyConnection, until: float) -> Iterator[None]:
    """Interrupt what the block runs once its time is over: again and again, for between statements it is lost."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(max(_INTERRUPT_SECONDS, until - time.monotonic())):
            database.interrupt()

    watcher = threading.Thread(target=watch, name="diff-watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Give an empty database in memory, which may use a folder of its own where that does not suffice."""
    with TemporaryDirectory(prefix="diff-") as folder:
        settings = ReplicaSettings(memory_limit=_MEMORY_LIMIT, threads=1)
        with open_memory(settings, folder) as database:
            yield database


_LIST = b"snapshots"


def page_of(manifests: Sequence[SnapshotManifest], limit: int, after: str | None) -> SnapshotPage:
    """Return the first `limit` after the cursor's place, the newest first.

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
        Unavailable: others are being compared, or the storage does not answer.
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
        raise Mismatch(FieldError("invalid_cursor", detail, parameter="cursor")) from error


def _place(manifest: SnapshotManifest) -> tuple[int, UUID]:
    created_at = manifest.created_at.astimezone(UTC).replace(tzinfo=None)
    return microseconds(created_at), uuid5(NAMESPACE_URL, manifest.name)
