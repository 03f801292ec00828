"""Keeps the search index up to date: one thread follows the replica's versions."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import duckdb
import structlog

from core.web.problems import Unavailable
from serving_api.metrics import SEARCH_INDEX_VERSION, SEARCH_SCANS
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point, State, get_point
from serving_api.search.candidates import IndexSnapshot
from serving_api.search.index import Damaged, Meta, SearchIndex, moment_number
from serving_api.search.repository import (
    blocks,
    changed_after,
    list_hits,
    list_in_order,
    list_starts,
    list_withdrawn,
    read_entries,
)
from serving_api.texts.query import PageQuery
from serving_api.texts.repository import Condition, Row

T = TypeVar("T")

log = structlog.get_logger()

# How often the thread looks for a new version. Until then queries read the few new texts without the index.
_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 5.0
# Snapshots of earlier commits: queries that began before the newest one see an older version.
_KEPT = 4


class _Stopped(Exception):
    """The program ends."""


class SearchFollower:
    """Brings the replica's texts into the index in its folder."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._index: SearchIndex | None = None
        self._snapshots: deque[IndexSnapshot] = deque(maxlen=_KEPT)
        self._behind_since: float | None = None
        self._broken = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)

    @property
    def _path(self) -> Path:
        return self._replica.folder.path / "search"

    def start(self) -> None:
        """Begin to follow the open replica."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Stop within `timeout_seconds`; unfinished work is repeated after the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    @property
    def version(self) -> int | None:
        """The point of the change feed that the index holds; None while there is no index."""
        snapshots = tuple(self._snapshots)
        return snapshots[-1].meta.version if snapshots else None

    @property
    def behind_seconds(self) -> float:
        """How long the index has lacked a version that the replica has."""
        since = self._behind_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def built(self) -> int:
        """The version that the index was begun with; 0 while there is no index."""
        snapshots = tuple(self._snapshots)
        return snapshots[-1].meta.built if snapshots else 0

    def snapshot_or_none(self, point: Point) -> IndexSnapshot | None:
        """Return the newest index that is not later than `point`; None if there is none."""
        fitting = [
            snapshot
            for snapshot in tuple(self._snapshots)
            if snapshot.meta.identity == point.identity and snapshot.meta.version <= point.version
        ]
        return fitting[-1] if fitting else None

    def ask(self, point: Point, look: Callable[[IndexSnapshot], T]) -> T | None:
        """Return the result of `look` on the index as of `point`; None if there is no usable index."""
        snapshot = self.snapshot_or_none(point)
        try:
            return look(snapshot) if snapshot else None
        except Damaged as error:
            self.report_damage(error)
            return None

    def list_hits(
        self, cursor: duckdb.DuckDBPyConnection, point: Point, page: PageQuery, count: int, until: float
    ) -> list[Row]:
        """Return what `search.repository.list_hits` finds; without an index it reads all texts."""
        rows = self.ask(point, lambda index: list_hits(cursor, page, count, index, until))
        if rows is None:
            SEARCH_SCANS.inc()
            rows = list_hits(cursor, page, count, None, until)
        return rows

    def list_in_order(
        self, cursor: duckdb.DuckDBPyConnection, point: Point, page: PageQuery, count: int, until: float
    ) -> list[Row] | None:
        """Return what `search.repository.list_in_order` finds; None if no index can be used."""
        return self.ask(point, lambda index: list_in_order(cursor, page, count, index, until))

    def report_damage(self, error: Damaged) -> None:
        """Mark the index as unusable: it is rebuilt."""
        log.warning("search.damaged", path=str(self._path), error=str(error))
        self._snapshots.clear()
        self._broken.set()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                self.follow()
            except _Stopped:
                break
            except Unavailable:
                continue  # there is no replica yet, or it is just renewed
            except Damaged as error:
                self.report_damage(error)
            except Exception as error:  # noqa: BLE001 - retry after any error
                log.warning("search.failed", error=str(error), kind=type(error).__name__)
                self.close()
                self._stop.wait(_RETRY_SECONDS)
        self.close()

    def follow(self) -> None:
        """Bring the index to the replica's version."""
        state = self._replica.loaded()
        if self._behind_since is None and (self.version or 0) < state.version:
            self._behind_since = time.monotonic()
        self._follow(state)
        self._behind_since = None

    def _follow(self, state: State) -> None:
        if self._broken.is_set():
            self.close()
        index = self._index or self._open()
        if index is None:
            self._build()
            return
        meta = self._snapshots[-1].meta
        if meta.identity != state.identity or meta.version > state.version:
            log.info("search.stale", found=meta.version, wanted=state.version)
            self._build()
        elif meta.built < self._replica.forgotten and not self._replica.has_traces:
            # tantivy keeps deleted texts in its files until it merges them, at a time of its choice.
            log.info("search.forgetting")
            self._build()
        elif meta.version < state.version:
            self._catch_up(index, meta)

    def _open(self) -> SearchIndex | None:
        """Open the existing index; None if it is unusable."""
        if self._broken.is_set():
            return None
        try:
            index = SearchIndex.open(self._path)
            self._show(index)
        except Damaged as error:
            log.info("search.unusable", path=str(self._path), reason=str(error))
            return None
        return index

    def close(self) -> None:
        """Close the index."""
        self._index = None
        self._snapshots.clear()

    def _build(self) -> None:
        """Index all texts; `_catch_up` then adds those that changed meanwhile, by their version."""
        self.close()
        index = SearchIndex.begin(self._path)
        self._broken.clear()
        with self._replica.reading() as cursor:
            point, starts = get_point(cursor), list_starts(cursor)
        log.info("search.building", version=point.version)
        started = time.perf_counter()
        numbers = tuple(moment_number(start) for start in starts)
        meta = Meta(point.identity, point.version, numbers or (0,), 0, 0, point.version)
        # Block by block: DuckDB keeps overwritten rows as long as a transaction lasts.
        for condition in blocks(starts):
            with self._replica.reading() as cursor:
                meta = self._add(index, cursor, condition, meta)
        index.commit(meta)
        self._show(index)
        log.info("search.built", version=point.version, seconds=round(time.perf_counter() - started, 3))

    def _catch_up(self, index: SearchIndex, meta: Meta) -> None:
        """Index what changed since the version of the index."""
        try:
            with self._replica.reading() as cursor:
                point = get_point(cursor)
                for id_ in list_withdrawn(cursor, meta.version):
                    index.remove(id_)
                meta = self._add(index, cursor, changed_after(meta.version), meta)
            index.commit(replace(meta, identity=point.identity, version=point.version))
        except BaseException:
            index.undo()
            raise
        self._show(index)

    def _add(
        self, index: SearchIndex, cursor: duckdb.DuckDBPyConnection, condition: Condition, meta: Meta
    ) -> Meta:
        for entry in read_entries(cursor, condition):
            if self._stop.is_set():
                raise _Stopped
            moment = moment_number(entry.labelled_at)
            meta = meta.with_text(moment)
            index.put(entry, meta.block_of(moment))
        return meta

    def _show(self, index: SearchIndex) -> None:
        snapshot = IndexSnapshot(index.searcher(), index.schema, index.meta())
        self._snapshots.append(snapshot)
        self._index = index
        SEARCH_INDEX_VERSION.set(snapshot.meta.version)
