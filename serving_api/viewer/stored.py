"""Rows of snapshots, read from their Parquet files one part of a row group at a time."""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import parquet

from core.web.problems import NotFound, Unavailable
from serving_api.columns import Kind
from serving_api.snapshots.manifest import FACTS, SnapshotManifest, SplitFile
from serving_api.snapshots.repository import Facts
from serving_api.snapshots.service import Snapshots
from serving_api.snapshots.storage import reaching_storage
from serving_api.texts.matching import Search
from serving_api.texts.repository import Condition
from serving_api.viewer.conditions import (
    Filter,
    Key,
    NumberedRow,
    Slice,
    Span,
    columns_in,
    condition_of,
    keys_of,
)
from serving_api.viewer.descriptions import ConfigFacts, SplitFacts
from serving_api.viewer.features import SplitColumn, columns_of
from serving_api.viewer.refusals import no_config, no_split
from serving_api.viewer.repository import list_page
from serving_api.viewer.statistics import make_statistics

_MOST = 1000


class FileResults:
    """A cache of results of immutable files, by their hashes. The oldest is dropped first.

    Spares a request to the storage for a Parquet footer, and reading all rows for statistics.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._things: dict[tuple[str, str], Any] = {}

    def get(self, kind: str, sha256: str, make: Callable[[], Any]) -> Any:
        """Return the result for the file with this hash; `make` it if it is not cached."""
        key = kind, sha256
        with self._lock:
            if key in self._things:
                return self._things[key]
        made = make()
        with self._lock:
            self._things[key] = made
            if len(self._things) > _MOST:
                del self._things[next(iter(self._things))]
        return made


PLACE = "place_in_split"
_BATCH_ROWS = 4096
_STREAMED_ROWS = 16_384


class SplitReader:
    """An open file of a split, read within a time limit."""

    def __init__(self, file: Any, until: float) -> None:
        """Read the footer of a file that can seek; `until` is by the monotonic clock.

        Raises:
            pyarrow.ArrowInvalid: it is not Parquet.
        """
        self._file = parquet.ParquetFile(file)
        self._until = until
        self.failure: Exception | None = None  # why a stream ended; DuckDB tells its own story
        self.columns = columns_of(self._file.schema_arrow)
        self._names = [column.name for column in self.columns]

    @property
    def rows(self) -> int:
        """Rows of the split."""
        total: int = self._file.metadata.num_rows
        return total

    @property
    def uncompressed_bytes(self) -> int:
        """Bytes of the columns before compression, as the footer has them."""
        metadata = self._file.metadata
        return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))

    def read_span(self, span: Span) -> list[NumberedRow]:
        """Return the rows of a span."""
        return self.read_places(range(span.offset, min(span.offset + span.length, self.rows)))

    def read_places(self, places: Sequence[int]) -> list[NumberedRow]:
        """Return the rows at these places, in the order given; reads the row groups that hold them, and no other.

        Raises:
            Unavailable: it took too long.
        """
        found: dict[int, NumberedRow] = {}
        wanted = sorted(places)
        for group, (start, end) in enumerate(pairwise(self._starts())):
            here = wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]
            if here:
                found |= self._read_group(group, start, here)
        return [found[place] for place in places]

    def batches(self, names: Sequence[str]) -> pa.RecordBatchReader:
        """Stream these columns of all rows, with the row's place beside; times are UTC without a zone.

        Raises:
            Unavailable: on the way, when it took too long.
        """
        schema = pa.schema([_without_zone(field) for field in self._file.schema_arrow if field.name in names])
        schema = schema.append(pa.field(PLACE, pa.int64()))
        return pa.RecordBatchReader.from_batches(schema, self._stream(schema))

    def _stream(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._numbered(schema)
        except Exception as error:
            self.failure = error
            raise

    def _numbered(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        start = 0
        # One column at least: its rows have to be counted.
        names = schema.names[:-1] or self._names[:1]
        for batch in self._file.iter_batches(_STREAMED_ROWS, columns=names):
            self._check_time()
            arrays = [batch.column(name).cast(schema.field(name).type) for name in schema.names[:-1]]
            end = start + len(batch)
            places = pa.array(range(start, end), pa.int64())
            yield pa.RecordBatch.from_arrays([*arrays, places], schema=schema)
            start = end

    def _read_group(self, group: int, start: int, places: Sequence[int]) -> dict[int, NumberedRow]:
        found: dict[int, NumberedRow] = {}
        for batch in self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=self._names):
            self._check_time()
            end = start + len(batch)
            for place in (place for place in places if start <= place < end):
                found[place] = NumberedRow(place, self._values(batch, place - start))
            start = end
            if places[-1] < end:
                break
        return found

    def _values(self, batch: pa.RecordBatch, index: int) -> tuple[Any, ...]:
        return tuple(_value(column, batch.column(column.name)[index]) for column in self.columns)

    def _starts(self) -> list[int]:
        """Return the place at which each row group begins, and the end of the last one."""
        metadata, starts = self._file.metadata, [0]
        for group in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(group).num_rows)
        return starts

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise Unavailable("The query took too long.", code="query_timeout", retry_after_seconds=5)


def _without_zone(field: pa.Field) -> pa.Field:
    return field.with_type(pa.timestamp("us")) if pa.types.is_timestamp(field.type) else field


def _value(column: SplitColumn, scalar: pa.Scalar) -> Any:
    value = scalar.as_py()
    return value.replace(tzinfo=None) if column.kind is Kind.MOMENT and value else value


# The config of live labels, which no snapshot can have, and its split.
LIVE = "live"
LIVE_SPLIT = "train"

Footer = tuple[tuple[SplitColumn, ...], int]  # columns, and bytes before compression


class StoredSnapshots:
    """The snapshots; every method waits for the storage."""

    def __init__(self, snapshots: Snapshots, kept: FileResults) -> None:
        self._snapshots = snapshots
        self._kept = kept

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
        """Return a snapshot and one of its splits; raises as `get` does, also where it has no such split."""
        manifest = self.get(dataset, config)
        if split not in manifest.splits:
            raise no_split(split, config, list(manifest.splits))
        return manifest, manifest.splits[split]

    @contextmanager
    def opened(self, manifest: SnapshotManifest, split: SplitFile, until: float) -> Iterator[SplitReader]:
        """Give the open file of a split, to be read `until` then, by the monotonic clock.

        Raises:
            Unavailable: the storage does not answer, the file is damaged, or it took too long.
        """
        with reaching_storage(), self._snapshots.open(manifest.name, split.path) as file, _reading(manifest):
            yield SplitReader(file, until)

    def facts(self, manifest: SnapshotManifest, until: float) -> ConfigFacts:
        """Return a snapshot's counts, from its manifest and the footers of its files."""
        columns: tuple[SplitColumn, ...] = ()
        splits = []
        for name, split in manifest.splits.items():
            columns, memory = self._footer(manifest, split, until)
            splits.append(SplitFacts(name, split.rows, memory, split.bytes))
        return ConfigFacts(manifest.dataset, manifest.name, columns, splits)

    def _footer(self, manifest: SnapshotManifest, split: SplitFile, until: float) -> Footer:
        def read() -> Footer:
            if time.monotonic() > until:
                raise Unavailable("The query took too long.", code="query_timeout", retry_after_seconds=5)
            with self.opened(manifest, split, until) as reader:
                return reader.columns, reader.uncompressed_bytes

        footer: Footer = self._kept.get("footer", split.sha256, read)
        return footer


@contextmanager
def _reading(manifest: SnapshotManifest) -> Iterator[None]:
    """Tell a damaged file from a storage that does not answer: for a damaged one Arrow sets no `errno`."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        detail = f"The snapshot {manifest.name} cannot be read; its files may be damaged."
        raise Unavailable(detail, code="snapshot_damaged", retry_after_seconds=60) from error


Connection = duckdb.DuckDBPyConnection

# A view of the connection's own, which no other one sees.
_ROWS = "split_rows"


def filter_rows(cursor: Connection, split: SplitReader, asked: Filter, span: Span) -> Slice:
    """Return rows that fit, in the order asked for, then in the split's own."""
    where, keys = condition_of(asked.where, {}), keys_of(asked.orderby, {})
    return _read(cursor, split, list(_looked_at(asked)), where, keys, span)


def search_rows(cursor: Connection, split: SplitReader, search: Search, span: Span) -> Slice:
    """Return all rows that match, the best first, then in the split's own order."""
    return _read(cursor, split, ["text"], search.condition(), [Key(search.relevance(), "desc")], span)


def statistics(cursor: Connection, split: SplitReader) -> dict[str, Any]:
    """Return the statistics of all columns."""

    @contextmanager
    def rows(columns: Sequence[SplitColumn]) -> Iterator[tuple[str, Condition]]:
        with _streamed(cursor, split, [column.name for column in columns]) as relation:
            yield relation, ("true", [])

    return make_statistics(cursor, split.columns, {}, rows)


@contextmanager
def _streamed(cursor: Connection, split: SplitReader, names: Sequence[str]) -> Iterator[str]:
    """Give the name of a relation with these columns of the split; it can be read once.

    Raises:
        Unavailable: it took too long.
        OSError: the storage does not answer.
    """
    cursor.register(_ROWS, split.batches(names))
    try:
        yield _ROWS
    except duckdb.Error as error:
        raise split.failure or error from error
    finally:
        cursor.unregister(_ROWS)


def _read(
    cursor: Connection,
    split: SplitReader,
    names: Sequence[str],
    where: Condition,
    keys: Sequence[Key],
    span: Span,
) -> Slice:
    with _streamed(cursor, split, names) as rows:
        total, found = list_page(cursor, PLACE, rows, where, keys, PLACE, span)
    return Slice(split.read_places([place for (place,) in found]), total)


def _looked_at(asked: Filter) -> Iterator[str]:
    columns: list[SplitColumn] = [
        *(columns_in(asked.where) if asked.where else ()),
        *(o.column for o in asked.orderby),
    ]
    yield from dict.fromkeys(column.name for column in columns)
