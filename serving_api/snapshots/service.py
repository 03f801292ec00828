"""Snapshots: creates, lists, rewrites and deletes them, within their quota."""

import math
import shutil
import time
from collections.abc import Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import structlog

from core.datasets import Datasets
from core.web.keys import is_dataset_allowed
from core.web.problems import Conflict, NotFound, Unavailable
from core.web.rate_limits import Places
from serving_api.changes.service import feed_of
from serving_api.metrics import SNAPSHOT_SECONDS, SNAPSHOTS
from serving_api.replica import repository
from serving_api.replica.query_pool import FairThreads
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.settings import DataSettings
from serving_api.snapshots.diff import Differ, Forgotten
from serving_api.snapshots.manifest import FACTS, Facts, SnapshotManifest, SplitFile
from serving_api.snapshots.parameters import SnapshotCreate
from serving_api.snapshots.repository import Former, read_facts
from serving_api.snapshots.storage import Storage, no_snapshot, reaching_storage, storage_full
from serving_api.snapshots.writer import (
    TWINS,
    WriterLock,
    content_hash,
    rewrite,
    rewrite_twins,
    write_documents,
    write_splits,
)
from serving_api.texts.query import TextsQuery
from serving_api.watchdog import Crew

log = structlog.get_logger()

COMPARED_AT_ONCE = 2
_WAITING_WRITERS = 16
_READING_THREADS = 8
_DOWNLOADING_THREADS = 16


class Created(NamedTuple):
    """The snapshot of a request."""

    manifest: SnapshotManifest
    is_new: bool


class Snapshots:
    """All snapshots of a storage. One is written at a time."""

    def __init__(
        self,
        replica: Replica,
        settings: DataSettings,
        datasets: Datasets,
        *,
        share: float = 1,
        crew: Crew | None = None,
        diff_seconds: float = 3600,
    ) -> None:
        """`share` is the part of each bound that one client may use; `crew` watches running comparisons."""
        self._replica = replica
        self._settings = settings
        self._datasets = datasets
        folder = settings.data_dir.absolute() / "snapshots"
        self.storage = Storage(settings.snapshots_url or str(folder))
        self.forgotten = Forgotten(replica, self.storage)
        places = Places("comparisons of snapshots", COMPARED_AT_ONCE, share)
        crew = crew or Crew("comparisons of snapshots", COMPARED_AT_ONCE, math.inf)
        self.differ = Differ(self.storage, places, crew, diff_seconds)
        self._writer_lock = WriterLock(Path(self.storage.root) if self.storage.is_local else folder)
        # Threads that wait for the storage. A snapshot is finished even if its client disconnects.
        self.writing = FairThreads("snapshots", 1, _WAITING_WRITERS, share)
        self.reading = FairThreads("requests for snapshots", _READING_THREADS)
        self.downloading = FairThreads("downloads", _DOWNLOADING_THREADS)

    def list(self) -> list[SnapshotManifest]:
        """Return the manifests of the datasets that the request's key may use, the newest first.

        Raises:
            Unavailable: the storage does not answer.
        """
        return [one for one in self.storage.list() if is_dataset_allowed(one.dataset)]

    def get(self, name: str) -> SnapshotManifest:
        """Return a snapshot's manifest.

        Raises:
            NotFound: there is no such snapshot, or the request's key may not use its dataset.
            Unavailable: the storage does not answer.
        """
        manifest = self.storage.get(name)
        if not is_dataset_allowed(manifest.dataset):
            raise no_snapshot()
        return manifest

    def close(self) -> None:
        """Wait until the threads have finished. Close the replica first: that interrupts their queries."""
        for threads in (self.writing, self.reading, self.downloading):
            threads.close()

    def create(self, request: SnapshotCreate, query: TextsQuery) -> Created:
        """Write a snapshot of the query's texts, or return the one that the same request made of this version.

        Raises:
            Conflict: another snapshot has this name, no text is found, or the quota is used up.
            Unavailable: another snapshot is being written, the replica or the storage is unavailable, or disk
                space or memory is short.
        """
        started = time.perf_counter()
        try:
            created = self._create_in_turn(request, query)
        except Exception as error:
            is_refused = isinstance(error, Conflict | NotFound) or getattr(error, "code", None) == "too_busy"
            SNAPSHOTS.labels("refused" if is_refused else "failed").inc()
            raise
        SNAPSHOTS.labels("written" if created.is_new else "found").inc()
        if created.is_new:
            SNAPSHOT_SECONDS.observe(time.perf_counter() - started)
        return created

    def _create_in_turn(self, request: SnapshotCreate, query: TextsQuery) -> Created:
        try:
            with reaching_storage(), self._writer_lock.hold() as folder:
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
            _check_quota(known, folder, self._settings, more=1)
            follows = _followed(known, request, query.dataset)
            former = _former(self.storage, follows) if request.stratify else None
            splits = write_splits(cursor, query, request, former, folder)
            facts = read_facts(cursor, query, self._datasets[query.dataset])
        if not any(split.rows for split in splits.values()):
            raise Conflict("No labelled text fits these filters.", code="no_texts")
        manifest = _manifest(request, query.dataset, point, splits, [one.name for one in follows])
        _check_quota(known, folder, self._settings, more=manifest.bytes)
        write_documents(folder, manifest, facts)
        self.storage.publish(folder, manifest.name)
        log.info("snapshot.written", name=manifest.name, rows=manifest.rows)
        return Created(manifest, True)

    def rewrite(self, name: str, without: Set[str]) -> SnapshotManifest:
        """Remove the texts with these ids from a snapshot, and return its manifest.

        Splits that contained one of them get new hashes, and so does the content.

        Raises:
            NotFound: there is no such snapshot.
            Unavailable: as for `create`.
        """
        with reaching_storage(), self._writer_lock.hold() as folder:
            old = self.get(name)
            new = rewrite(self.storage, old, without, folder)
            if new != old:
                rewrite_twins(self.storage, old, without, folder)
                facts = Facts.model_validate_json(self.storage.read(name, FACTS))
                write_documents(folder, new, facts.without_sources())
                self.storage.replace(folder, new)
                log.info("snapshot.rewritten", name=name)
            # Also removes files of a rewrite that was killed.
            self.storage.prune(new)
            return new

    def delete(self, name: str) -> None:
        """Delete a snapshot. Readers see all of it or nothing.

        Snapshots that follow it do not change. Texts whose split only it stored may get other splits later.

        Raises:
            NotFound: there is no such snapshot.
            Unavailable: another snapshot is being written, or the storage does not answer.
        """
        with reaching_storage(), self._writer_lock.hold() as folder:
            self.storage.clean()
            self.get(name)  # the key may be limited to other datasets
            self.storage.delete(name, folder)
            log.info("snapshot.deleted", name=name)


def _check_quota(known: Sequence[SnapshotManifest], folder: Path, settings: DataSettings, *, more: int) -> None:
    """Check that the quota and the disk of `folder` allow another snapshot, of `more` bytes.

    Raises:
        Conflict: the number or the size of the snapshots is at its limit.
        Unavailable: the disk is nearly full.
    """
    held = sum(one.bytes for one in known)
    if len(known) >= settings.snapshots_max:
        exceeded = f"There are {len(known):,} snapshots, and SNAPSHOTS_MAX is {settings.snapshots_max:,}."
    elif held + more > settings.snapshots_max_bytes:
        limit = f"SNAPSHOTS_MAX_BYTES is {settings.snapshots_max_bytes:,}"
        exceeded = f"The {len(known):,} snapshots have {held:,} bytes, and {limit}."
    elif shutil.disk_usage(folder).free < settings.snapshots_min_free_bytes:
        raise storage_full()
    else:
        return
    advice = "Delete some first, as an administrator: DELETE /snapshots/{name}, or annotate snapshot delete NAME."
    if known:
        oldest, largest = known[-1], max(known, key=lambda one: one.bytes)
        advice += f" The oldest is {oldest.name}; the largest is {largest.name}, of {largest.bytes:,} bytes."
    raise Conflict(f"{exceeded} {advice}", code="snapshot_quota")


def _former(storage: Storage, follows: list[SnapshotManifest]) -> Former:
    """Return the ids of earlier snapshots with the indexes of their splits, and the near duplicates."""
    ids = (
        (index, batch)
        for manifest in follows
        for index, name in enumerate(sorted(manifest.splits))
        for batch in storage.batches(manifest.name, manifest.splits[name].path, ["id"])
    )
    return Former(ids, (batch for one in follows for batch in storage.batches(one.name, TWINS)))


def _followed(known: list[SnapshotManifest], request: SnapshotCreate, dataset: str) -> list[SnapshotManifest]:
    """Return the snapshots whose texts keep their splits in the requested one, if it is stratified."""
    asked = (dataset, request.splits, request.seed)
    return [
        one
        for one in known
        if request.stratify and one.stratified and (one.dataset, one.shares, one.seed) == asked
    ]


def _find(
    known: list[SnapshotManifest], request: SnapshotCreate, dataset: str, point: Point
) -> SnapshotManifest | None:
    """Return the snapshot that the same request made of the same version.

    Raises:
        Conflict: the name belongs to another snapshot.
    """
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


def _manifest(
    request: SnapshotCreate, dataset: str, point: Point, splits: dict[str, SplitFile], follows: list[str]
) -> SnapshotManifest:
    digest = content_hash(splits)
    return SnapshotManifest(
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
        follows=tuple(follows),
    )
