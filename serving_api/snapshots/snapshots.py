"""Snapshots of the labelled data: made once, kept as they are, read by name."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import duckdb
import structlog

from core.datasets import Datasets
from core.problems import Conflict, Unavailable
from serving_api import repository
from serving_api.changes import feed_of
from serving_api.query import TextsQuery
from serving_api.replica import Replica
from serving_api.repository import Point
from serving_api.settings import DataSettings
from serving_api.snapshots.documents import make_documents
from serving_api.snapshots.facts import Facts, read_facts
from serving_api.snapshots.manifest import MANIFEST, Manifest, SplitFile
from serving_api.snapshots.request import SnapshotCreate
from serving_api.snapshots.storage import Storage, reaching_storage, storage_full
from serving_api.snapshots.turn import Turns
from serving_api.snapshots.writing import write_splits

log = structlog.get_logger()


class Created(NamedTuple):
    """The snapshot that a request asked for."""

    manifest: Manifest
    is_new: bool


class Snapshots:
    """All snapshots of a storage; one is written at a time."""

    def __init__(self, replica: Replica, settings: DataSettings, datasets: Datasets) -> None:
        self._replica = replica
        self._datasets = datasets
        folder = settings.data_dir.absolute() / "snapshots"
        self.storage = Storage(settings.snapshots_url or str(folder))
        self._turns = Turns(Path(self.storage.root) if self.storage.is_local else folder)
        self._thread = ThreadPoolExecutor(1, "snapshot")

    def list(self) -> list[Manifest]:
        """Return all manifests, the newest first.

        Raises:
            Unavailable: the storage does not answer.
        """
        return self.storage.list()

    def get(self, name: str) -> Manifest:
        """Return a snapshot's manifest.

        Raises:
            NotFound: there is no such snapshot.
            Unavailable: the storage does not answer.
        """
        return self.storage.get(name)

    def open(self, name: str, path: str, **options: Any) -> BinaryIO:
        """Open a file of a snapshot, as its manifest names it: seekable, read in parts; raises as `get` does."""
        return self.storage.open(name, path, **options)

    def submit(self, request: SnapshotCreate, query: TextsQuery) -> "Future[Created]":
        """Begin to create a snapshot in a thread of its own; it is finished also when nobody waits for it."""
        return self._thread.submit(self.create, request, query)

    def close(self) -> None:
        """Wait for what is under way to end; the replica's end, before, interrupts it."""
        self._thread.shutdown()

    def create(self, request: SnapshotCreate, query: TextsQuery) -> Created:
        """Write a snapshot of what the query finds, or return the one that the same request made of this version.

        Raises:
            Conflict: another one has this name, or nothing is found.
            Unavailable: another snapshot is being written, the replica or the storage is not there, or space or
                memory is short.
        """
        try:
            with reaching_storage(), self._turns.turn() as folder:
                self.storage.clean()
                return self._create(request, query, folder)
        except duckdb.OutOfMemoryException as error:
            raise Unavailable("Memory is short.", code="too_busy", retry_after_seconds=5) from error
        except duckdb.IOException as error:
            raise storage_full() from error

    def _create(self, request: SnapshotCreate, query: TextsQuery, folder: Path) -> Created:
        known = self.storage.list()
        with self._replica.reading() as cursor:
            point = repository.get_point(cursor)
            found = _find(known, request, query.dataset, point)
            if found:
                return Created(found, False)
            splits = write_splits(cursor, query, request.splits, request.seed, folder)
            facts = read_facts(cursor, query, self._datasets[query.dataset])
        if not any(split.rows for split in splits.values()):
            raise Conflict("No labelled text fits these filters.", code="no_texts")
        manifest = _manifest(request, query.dataset, point, splits)
        _finish(folder, manifest, facts)
        self.storage.publish(folder, manifest.name)
        log.info("snapshot.written", name=manifest.name, rows=sum(split.rows for split in splits.values()))
        return Created(manifest, True)


def _find(known: list[Manifest], request: SnapshotCreate, dataset: str, point: Point) -> Manifest | None:
    """Return what the same request made of the same version."""
    prefix = f"{dataset}-{point.version}-"
    for one in known:
        if request.name is None and not one.name.startswith(prefix):
            continue
        if request.name not in {None, one.name}:
            continue
        same_version = (one.version, one.feed) == (point.version, feed_of(point.identity))
        if same_version and request.is_answered_by(one, dataset):
            return one
        if one.name == request.name:
            detail = f"There is a snapshot {one.name} already, of version {one.version} or of another request."
            raise Conflict(detail, code="snapshot_exists")
    return None


def content_hash(splits: dict[str, SplitFile]) -> str:
    """Return the hash of the splits' names and files."""
    parts = "".join(f"{name} {split.sha256}\n" for name, split in sorted(splits.items()))
    return hashlib.sha256(parts.encode()).hexdigest()


def _manifest(request: SnapshotCreate, dataset: str, point: Point, splits: dict[str, SplitFile]) -> Manifest:
    digest = content_hash(splits)
    return Manifest(
        name=request.name or f"{dataset}-{point.version}-{digest[:12]}",
        created_at=datetime.now(UTC),
        dataset=dataset,
        version=point.version,
        feed=feed_of(point.identity),
        content_hash=digest,
        seed=request.seed,
        shares=request.splits,
        stratified=request.stratify,
        filters=request.filters,
        splits=splits,
    )


def _finish(folder: Path, manifest: Manifest, facts: Facts) -> None:
    for path, content in make_documents(manifest, facts).items():
        (folder / path).write_bytes(content)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2))
