"""Rows of snapshots, read from their Parquet files one part of a row group at a time."""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa
from cachetools import LRUCache
from pyarrow import parquet

from core.web.problems import NotFound, Unavailable
from serving_api.columns import Kind
from serving_api.snapshots.manifest import FACTS, Facts, SnapshotManifest, SplitFile
from serving_api.snapshots.service import Snapshots
from serving_api.snapshots.storage import reaching_storage
from serving_api.texts.query import TextsQuery
from serving_api.texts.repository import Condition
from serving_api.viewer.repository import aggregate, list_page
from serving_api.viewer.schemas import no_config, no_split
from serving_api.viewer.split_rows import (
    Config,
    Filter,
    NumberedRow,
    Slice,
    SortKey,
    Span,
    SplitColumn,
    columns_of,
    make_config,
)

Connection = duckdb.DuckDBPyConnection
T = TypeVar("T")

_RESULTS_MAX = 1000

_OFFSET = "row_offset"
# A view that only the connection sees.
_VIEW = "split_rows"
_BATCH_ROWS = 4096
_STREAMED_ROWS = 16_384


class StoredSplit:
    """An open file of a split, read within a time limit."""

    def __init__(self, file: Any, until: float, cursor: Connection) -> None:
        """Read the footer of a file that can seek.

        `until` is by the monotonic clock. `cursor` is of a database in memory, which runs the queries.

        Raises:
            pyarrow.ArrowInvalid: it is not Parquet.
        """
        self._file = parquet.ParquetFile(file)
        self._until = until
        self._cursor = cursor
        self._failure: Exception | None = None  # the reason why a stream ended; DuckDB raises another error
        self.columns = columns_of(self._file.schema_arrow)
        self._names = [column.name for column in self.columns]

    @property
    def uncompressed_bytes(self) -> int:
        """Bytes of the columns before compression, as the footer has them."""
        metadata = self._file.metadata
        return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))

    def rows(self, span: Span) -> Slice:
        """Return the rows of a span."""
        total = self._file.metadata.num_rows
        return Slice(self.read_offsets(range(span.offset, min(span.offset + span.length, total))), total)

    def filter(self, rows_filter: Filter, span: Span) -> Slice:
        """Return the rows that fit, in the requested order, then in the split's own."""
        return self._list(rows_filter.columns, rows_filter.where, rows_filter.orderby, span)

    def search(self, query: TextsQuery, span: Span) -> Slice:
        """Return all rows that match, the best first, then in the split's own order."""
        search = query.search
        return self._list(["text"], search.condition(), [SortKey(search.relevance(), "desc")], span)

    def aggregate(self, columns: Sequence[SplitColumn], wanted: Sequence[Condition]) -> tuple[Any, ...]:
        """Return the values of SQL aggregates over all rows; they use these columns."""
        with self._streamed([column.name for column in columns]):
            return aggregate(self._cursor, _VIEW, ("true", []), wanted)

    def read_offsets(self, offsets: Sequence[int]) -> list[NumberedRow]:
        """Return the rows at these offsets, in the given order. Reads only the row groups that contain them.

        Raises:
            Unavailable: it took too long.
        """
        found: dict[int, NumberedRow] = {}
        wanted = sorted(offsets)
        for group, (start, end) in enumerate(pairwise(self._starts())):
            here = wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]
            if here:
                found |= self._read_group(group, start, here)
        return [found[offset] for offset in offsets]

    def _list(self, names: Sequence[str], where: Condition, keys: Sequence[SortKey], span: Span) -> Slice:
        with self._streamed(names):
            total, found = list_page(self._cursor, _OFFSET, _VIEW, where, keys, _OFFSET, span)
        return Slice(self.read_offsets([offset for (offset,) in found]), total)

    @contextmanager
    def _streamed(self, names: Sequence[str]) -> Iterator[None]:
        """Make these columns of all rows, and each row's offset, a view that can be read once.

        Times are UTC without a zone.

        Raises:
            Unavailable: it took too long.
            OSError: the storage does not answer.
        """
        schema = pa.schema([_without_zone(field) for field in self._file.schema_arrow if field.name in names])
        schema = schema.append(pa.field(_OFFSET, pa.int64()))
        self._cursor.register(_VIEW, pa.RecordBatchReader.from_batches(schema, self._stream(schema)))
        try:
            yield
        except duckdb.Error as error:
            raise self._failure or error from error
        finally:
            self._cursor.unregister(_VIEW)

    def _stream(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._numbered(schema)
        except Exception as error:
            self._failure = error
            raise

    def _numbered(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        start = 0
        # At least one column: rows must be counted.
        names = schema.names[:-1] or self._names[:1]
        for batch in self._file.iter_batches(_STREAMED_ROWS, columns=names):
            _check_time(self._until)
            arrays = [batch.column(name).cast(schema.field(name).type) for name in schema.names[:-1]]
            end = start + len(batch)
            offsets = pa.array(range(start, end), pa.int64())
            yield pa.RecordBatch.from_arrays([*arrays, offsets], schema=schema)
            start = end

    def _read_group(self, group: int, start: int, offsets: Sequence[int]) -> dict[int, NumberedRow]:
        found: dict[int, NumberedRow] = {}
        for batch in self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=self._names):
            _check_time(self._until)
            end = start + len(batch)
            for offset in (offset for offset in offsets if start <= offset < end):
                found[offset] = NumberedRow(offset, self._values(batch, offset - start))
            start = end
            if offsets[-1] < end:
                break
        return found

    def _values(self, batch: pa.RecordBatch, index: int) -> tuple[Any, ...]:
        return tuple(_value(column, batch.column(column.name)[index]) for column in self.columns)

    def _starts(self) -> list[int]:
        """Return the offset at which each row group begins, and the end of the last one."""
        metadata, starts = self._file.metadata, [0]
        for group in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(group).num_rows)
        return starts


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise Unavailable("The query took too long.", code="query_timeout", retry_after_seconds=5)


def _without_zone(field: pa.Field) -> pa.Field:
    return field.with_type(pa.timestamp("us")) if pa.types.is_timestamp(field.type) else field


def _value(column: SplitColumn, scalar: pa.Scalar) -> Any:
    value = scalar.as_py()
    return value.replace(tzinfo=None) if column.kind is Kind.MOMENT and value else value


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
    def opened(
        self, manifest: SnapshotManifest, split: SplitFile, until: float, cursor: Connection
    ) -> Iterator[StoredSplit]:
        """Yield the open file of a split, which can be read until the deadline, by the monotonic clock.

        Raises:
            Unavailable: the storage does not answer, the file is damaged, or it took too long.
        """
        with (
            reaching_storage(),
            self._snapshots.storage.open(manifest.name, split.path) as file,
            _reading(manifest),
        ):
            yield StoredSplit(file, until, cursor)

    def measure(self, manifest: SnapshotManifest, until: float, cursor: Connection) -> Config:
        """Return a snapshot's columns and sizes, from its manifest and the footers of its files."""
        footers = {name: self._footer(manifest, split, until, cursor) for name, split in manifest.splits.items()}
        sizes = {name: (split.rows, footers[name][1], split.bytes) for name, split in manifest.splits.items()}
        columns = footers[next(iter(footers))][0]
        return make_config(manifest.dataset, manifest.name, columns, sizes)

    def _footer(self, manifest: SnapshotManifest, split: SplitFile, until: float, cursor: Connection) -> Footer:
        def read() -> Footer:
            _check_time(until)
            with self.opened(manifest, split, until, cursor) as opened:
                return opened.columns, opened.uncompressed_bytes

        return self.cached("footer", split, read)


@contextmanager
def _reading(manifest: SnapshotManifest) -> Iterator[None]:
    """Distinguish a damaged file from a storage that does not answer: Arrow sets `errno` only for the latter."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        detail = f"The snapshot {manifest.name} cannot be read; its files may be damaged."
        raise Unavailable(detail, code="snapshot_damaged", retry_after_seconds=60) from error
