"""What two snapshots differ in: texts that one lacks, that have another label, or another split."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from uuid import UUID

import duckdb
import pyarrow as pa
from pyarrow import parquet

from core.problems import Unavailable
from serving_api.snapshots.manifest import Manifest
from serving_api.snapshots.storage import Storage, reaching_storage

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


class Difference(NamedTuple):
    """How many texts differ in which way, and a page of them, by id."""

    added: int
    removed: int
    relabelled: int
    moved: int
    items: list[dict[str, Any]]


class Differ:
    """Compares snapshots, so many at once."""

    def __init__(self, storage: Storage, at_once: int) -> None:
        self._storage = storage
        self._slots = threading.Semaphore(at_once)

    def compare(self, before: Manifest, after: Manifest, last: UUID | None, limit: int) -> Difference:
        """Return what is other in `after` than in `before`: the first `limit` texts behind the id `last`.

        Raises:
            NotFound: a file of one is gone.
            Unavailable: others are being compared, or the storage does not answer.
        """
        if not self._slots.acquire(blocking=False):
            raise Unavailable("Other snapshots are being compared.", code="too_busy", retry_after_seconds=2)
        try:
            with _database() as database:
                self._load(database, "before", before)
                self._load(database, "after", after)
                added, removed, relabelled, moved = database.execute(_TOTALS).fetchall()[0]
                rows = database.execute(_ITEMS, [last or _FIRST, limit]).to_arrow_table().to_pylist()
                return Difference(added, removed, relabelled, moved, rows)
        finally:
            self._slots.release()

    def _load(self, database: duckdb.DuckDBPyConnection, table: str, manifest: Manifest) -> None:
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
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Give an empty database in memory, which may use a folder of its own where that does not suffice."""
    with TemporaryDirectory(prefix="diff-") as folder:
        config: dict[str, Any] = {
            "enable_external_access": False,
            "python_enable_replacements": False,
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": folder,
            "threads": 1,
        }
        with duckdb.connect(":memory:", config=config) as database:
            yield database
