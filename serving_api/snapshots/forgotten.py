"""Which snapshots hold texts that were forgotten since they were made."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from threading import Lock
from uuid import UUID

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from core.web.problems import NotFound
from serving_api.changes.service import feed_of
from serving_api.replica.replica import Replica
from serving_api.snapshots.manifest import Manifest
from serving_api.snapshots.storage import Storage, reaching_storage

_IDS_AT_ONCE = 65_536

_FORGOTTEN = "select id from tombstones where forgotten and dataset = ? and version > ? and version <= ?"


class Forgotten:
    """Looks forgotten texts up in snapshots: those of a version once in each snapshot, by its column of ids."""

    def __init__(self, replica: Replica, storage: Storage) -> None:
        self._replica = replica
        self._storage = storage
        self._lock = Lock()
        # By the hash of the content: up to which version was looked, and what was found.
        self._seen: dict[str, tuple[int, frozenset[UUID]]] = {}

    def mark(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the number of forgotten texts that the snapshot holds.

        Raises:
            NotFound: a file of it is gone.
            Unavailable: the storage does not answer.
        """
        return manifest.model_copy(update={"forgotten": len(self.find(manifest))})

    def find_in(self, manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, frozenset[UUID]]]:
        """Yield those snapshots that are still there, and the forgotten texts that each holds."""
        for manifest in manifests:
            with suppress(NotFound):  # deleted
                try:
                    found = self.find(manifest)
                except NotFound:  # rewritten meanwhile, or deleted
                    found = self.find(self._storage.get(manifest.name))
                yield manifest, found

    def find(self, manifest: Manifest) -> frozenset[UUID]:
        """Return the forgotten texts that a snapshot holds; raises as `mark` does."""
        state = self._replica.state
        newest = self._replica.forgotten
        if state is None:
            return frozenset()
        # What was forgotten before the snapshot's version is not in it; but versions of another feed say nothing.
        first = manifest.version if manifest.feed == feed_of(state.identity) else 0
        with self._lock:
            seen, found = self._seen.get(manifest.content_hash, (first, frozenset()))
        if newest <= seen:
            return found
        with self._replica.reading() as cursor:
            rows = cursor.execute(_FORGOTTEN, [manifest.dataset, seen, newest]).fetchall()
        found |= self._look_up(manifest, {row[0] for row in rows}) if rows else frozenset()
        with self._lock:
            self._seen[manifest.content_hash] = (newest, found)
        return found

    def _look_up(self, manifest: Manifest, ids: Collection[UUID]) -> frozenset[UUID]:
        wanted = pa.array(sorted(map(str, ids)), pa.string())
        found: set[UUID] = set()
        for split in manifest.splits.values():
            with self._storage.open(manifest.name, split.path) as file, reaching_storage():
                for batch in parquet.ParquetFile(file).iter_batches(_IDS_AT_ONCE, columns=["id"]):
                    column = batch.column("id")
                    found |= {UUID(id_) for id_ in column.filter(pc.is_in(column, wanted)).to_pylist()}
        return frozenset(found)
