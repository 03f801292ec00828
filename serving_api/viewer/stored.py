"""The snapshots as configs of the viewer: finds their files, and keeps what never changes about a file."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa
from cachetools import LRUCache
from pyarrow import parquet

from core.web.problems import NotFound, Unavailable
from serving_api.replica.query_pool import check_time
from serving_api.snapshots.manifest import FACTS, Facts, SnapshotManifest, SplitFile
from serving_api.snapshots.service import Snapshots
from serving_api.snapshots.storage import reaching_storage
from serving_api.viewer.repository import StoredSplit
from serving_api.viewer.schemas import no_config, no_split
from serving_api.viewer.split_rows import Config, SplitColumn, columns_of, make_config

Connection = duckdb.DuckDBPyConnection
T = TypeVar("T")

_RESULTS_MAX = 1000

# The config of live labels, which is no valid name of a snapshot, and its split.
LIVE = "live"
LIVE_SPLIT = "train"

Footer = tuple[tuple[SplitColumn, ...], int]  # columns, and bytes before compression


class StoredSnapshots:
    """The snapshots. Every method waits for the storage."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._lock = threading.Lock()
        self._results: LRUCache[tuple[str, str], Any] = LRUCache(_RESULTS_MAX)

    def cached(self, kind: str, file: SplitFile, make: Callable[[], T]) -> T:
        """Return the result of a kind for an immutable file; `make` it unless it is cached.

        Spares a request to the storage for a Parquet footer, and reading all rows for statistics.
        """
        key = kind, file.sha256
        with self._lock:
            if key in self._results:
                return cast(T, self._results[key])
        made = make()
        with self._lock:
            self._results[key] = made
        return made

    def find(self, dataset: str, config: str | None) -> list[SnapshotManifest]:
        """Return a dataset's snapshot of this name, or all of them, the newest first; raises as `get` does."""
        if config is not None:
            return [self.get(dataset, config)]
        return [one for one in self._snapshots.list() if one.dataset == dataset]

    def get(self, dataset: str, config: str) -> SnapshotManifest:
        """Return a snapshot of a dataset.

        Raises:
            NotFound: the dataset has none of this name.
            Unavailable: the storage does not answer.
        """
        try:
            manifest = self._snapshots.get(config)
        except NotFound as error:
            raise no_config(config, dataset) from error
        if manifest.dataset != dataset:
            raise no_config(config, dataset)
        return manifest

    def get_facts(self, dataset: str, config: str) -> tuple[SnapshotManifest, Facts]:
        """Return a snapshot and its facts; raises as `get` does."""
        manifest = self.get(dataset, config)
        return manifest, Facts.model_validate_json(self._snapshots.storage.read(config, FACTS))

    def get_split(self, dataset: str, config: str, split: str) -> tuple[SnapshotManifest, SplitFile]:
        """Return a snapshot and one of its splits; raises as `get` does, and if the split does not exist."""
        manifest = self.get(dataset, config)
        if split not in manifest.splits:
            raise no_split(split, config, list(manifest.splits))
        return manifest, manifest.splits[split]

    @contextmanager
    def opened(self, manifest: SnapshotManifest, split: SplitFile, cursor: Connection) -> Iterator[StoredSplit]:
        """Yield a split; `cursor` is of a database that may read the storage's files.

        Raises:
            NotFound: the file is gone.
            Unavailable: the storage does not answer, or the file is damaged.
        """
        columns, _ = self._footer(manifest, split)
        address = self._snapshots.storage.address_of(manifest.name, split.path)
        try:
            yield StoredSplit(cursor, address, split.rows, columns)
        except (duckdb.OutOfMemoryException, duckdb.InterruptException):
            raise
        except duckdb.Error as error:
            with self._snapshots.storage.open(manifest.name, split.path):  # raises if that is the reason
                raise _damaged(manifest) from error

    def measure(self, manifest: SnapshotManifest, until: float) -> Config:
        """Return a snapshot's columns and sizes, from its manifest and the footers of its files.

        `until`: the deadline, by the monotonic clock.
        """
        footers = {}
        for name, split in manifest.splits.items():
            check_time(until)
            footers[name] = self._footer(manifest, split)
        sizes = {name: (split.rows, footers[name][1], split.bytes) for name, split in manifest.splits.items()}
        columns = footers[next(iter(footers))][0]
        return make_config(manifest.dataset, manifest.name, columns, sizes)

    def _footer(self, manifest: SnapshotManifest, split: SplitFile) -> Footer:
        def read() -> Footer:
            with self._snapshots.storage.open(manifest.name, split.path) as file, _reading(manifest):
                footer = parquet.read_metadata(file)
                groups = range(footer.num_row_groups)
                return columns_of(footer.schema.to_arrow_schema()), sum(
                    footer.row_group(group).total_byte_size for group in groups
                )

        return self.cached("footer", split, read)


@contextmanager
def _reading(manifest: SnapshotManifest) -> Iterator[None]:
    """Distinguish a damaged footer from a storage that does not answer: Arrow sets `errno` only for the latter."""
    with reaching_storage():
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                raise
            raise _damaged(manifest) from error


def _damaged(manifest: SnapshotManifest) -> Unavailable:
    detail = f"The snapshot {manifest.name} cannot be read; its files may be damaged."
    return Unavailable(detail, code="snapshot_damaged", retry_after_seconds=60)
