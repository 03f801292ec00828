"""Writes a snapshot's Parquet files from one version of the replica, one snapshot at a time."""

import fcntl
import hashlib
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import duckdb
import orjson
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from core.web.problems import Unavailable
from serving_api.exports.export_files import COMPARED, DICTIONARY, with_zone
from serving_api.snapshots.card import make_card
from serving_api.snapshots.croissant import make_croissant
from serving_api.snapshots.manifest import CARD, CROISSANT, FACTS, MANIFEST, Facts, SnapshotManifest, SplitFile
from serving_api.snapshots.parameters import SnapshotCreate
from serving_api.snapshots.repository import Former, assign, read_rows, read_twins, split_schema
from serving_api.snapshots.storage import Storage, remove
from serving_api.texts.query import TextsQuery

_LOCK = ".lock"
_WRITING = ".writing-"


class WriterLock:
    """A lock for one writer among all threads and processes that share a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = threading.Lock()

    @contextmanager
    def hold(self) -> Iterator[Path]:
        """Yield a new empty folder, and remove it at the end if it still exists. Removes those of dead writers.

        Raises:
            Unavailable: another snapshot is being written.
            OSError: the folder is not writable.
        """
        if not self._thread.acquire(blocking=False):
            raise _taken()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / _LOCK).open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system releases it if the process dies
                except BlockingIOError as error:
                    raise _taken() from error
                yield from self._new_folder()
        finally:
            self._thread.release()

    def _new_folder(self) -> Iterator[Path]:
        for left in self._folder.glob(f"{_WRITING}*"):
            remove(left)
        folder = self._folder / f"{_WRITING}{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            yield folder
        finally:
            remove(folder)


def _taken() -> Unavailable:
    return Unavailable("Another snapshot is being written.", code="too_busy", retry_after_seconds=5)


def write_documents(folder: Path, manifest: SnapshotManifest, facts: Facts) -> None:
    """Write the documents beside the data, and last the manifest.

    A rewrite reads the facts: the replica may no longer have the snapshot's version.
    """
    (folder / CARD).write_bytes(make_card(manifest, facts).encode())
    (folder / CROISSANT).write_bytes(orjson.dumps(make_croissant(manifest, facts), option=orjson.OPT_INDENT_2))
    (folder / FACTS).write_bytes(facts.model_dump_json(indent=2).encode())
    (folder / MANIFEST).write_bytes(manifest.model_dump_json(indent=2).encode())


# A row group grows by pieces, until it has this many rows or bytes.
_GROUP_ROWS = 65_536
_GROUP_BYTES = 16 * 2**20
_PIECE_ROWS = 512
# The columns that can make a row long.
_LONG = ("text", "metadata", "enrichment")
_ORDER = [("labelled_at", "ascending"), ("id", "ascending")]
_BLOOM_FALSE_POSITIVES = 0.05


class SplitWriter:
    """Writes one split, row group by row group, with at most one of them in memory."""

    def __init__(self, folder: Path, path: str, schema: pa.Schema) -> None:
        self._path = path
        self._schema = with_zone(schema)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = target.open("xb+")
        self._writer: parquet.ParquetWriter | None = None
        self._arrived: list[pa.RecordBatch] = []  # fewer rows than a piece
        self._arrived_rows = 0
        self._group: list[pa.Table] = []
        self._group_rows = self._group_bytes = 0
        self._rows = self._memory_bytes = 0
        self._labels: Counter[str] = Counter()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next rows."""
        self._arrived.append(batch)
        self._arrived_rows += len(batch)
        if self._arrived_rows < _PIECE_ROWS:
            return
        table = pa.Table.from_batches(self._arrived)
        whole = self._arrived_rows // _PIECE_ROWS * _PIECE_ROWS
        for start in range(0, whole, _PIECE_ROWS):
            self._add_piece(table.slice(start, _PIECE_ROWS))
        self._arrived = table.slice(whole).to_batches()
        self._arrived_rows -= whole

    def finish(self) -> SplitFile:
        """Write the remaining rows, close the file and return its description."""
        if self._arrived_rows:
            self._add_piece(pa.Table.from_batches(self._arrived))
        if self._group_rows or self._writer is None:
            self._write_group()
        if self._writer:
            self._writer.close()
        size = self._file.tell()
        self._file.seek(0)
        sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._file.close()
        return SplitFile(
            path=self._path,
            rows=self._rows,
            bytes=size,
            memory_bytes=self._memory_bytes,
            sha256=sha256,
            labels=dict(sorted(self._labels.items())),
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add_piece(self, piece: pa.Table) -> None:
        self._group.append(piece)
        self._group_rows += len(piece)
        self._group_bytes += sum(pc.sum(pc.binary_length(piece[name])).as_py() or 0 for name in _LONG)
        if self._group_rows >= _GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        # As one chunk: Parquet pages would end where chunks end.
        rows = pa.concat_tables(self._group) if self._group else self._schema.empty_table()
        table = rows.cast(self._schema).combine_chunks()
        self._group, self._group_rows, self._group_bytes = [], 0, 0
        self._writer = self._writer or self._open(len(table))
        if len(table):
            self._writer.write_table(table, row_group_size=len(table))
        self._rows += len(table)
        self._memory_bytes += table.nbytes
        for one in pc.value_counts(table["label"]).to_pylist():
            self._labels["null" if one["values"] is None else one["values"]] += one["counts"]

    def _open(self, rows: int) -> parquet.ParquetWriter:
        """Begin the file. The Bloom filters are sized for the first row group, which is the largest."""
        return parquet.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=DICTIONARY,
            write_statistics=["id", *COMPARED],
            write_page_index=True,
            sorting_columns=parquet.SortingColumn.from_ordering(self._schema, _ORDER),
            bloom_filter_options={"id": {"ndv": max(1, rows), "fpp": _BLOOM_FALSE_POSITIVES}},
        )


def write_splits(
    cursor: duckdb.DuckDBPyConnection,
    query: TextsQuery,
    request: SnapshotCreate,
    former: Former | None,
    folder: Path,
) -> dict[str, SplitFile]:
    """Write each split's file below `folder`, and return their descriptions in the order of the request.

    If it is stratified, `former` are the texts of earlier snapshots.
    """
    shares, seed = request.splits, request.seed
    if former is not None:
        assign(cursor, query, shares, seed, former)
        _write_twins(read_twins(cursor, query), folder)
    schema, names = split_schema(cursor), sorted(shares)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(closing(SplitWriter(folder, f"data/{name}.parquet", schema))) for name in names
        ]
        for batch in read_rows(cursor, query, shares, seed, assigned=former is not None):
            places, rows = batch.column("split"), batch.drop_columns(["split"])
            for place, writer in enumerate(writers):
                writer.add(rows.filter(pc.equal(places, place)))
        written = {name: writer.finish() for name, writer in zip(names, writers, strict=True)}
    return {name: written[name] for name in shares}


def content_hash(splits: dict[str, SplitFile]) -> str:
    """Return the hash of the splits' names and files."""
    parts = "".join(f"{name} {split.sha256}\n" for name, split in sorted(splits.items()))
    return hashlib.sha256(parts.encode()).hexdigest()


_ROWS_AT_ONCE = 2048


def rewrite(storage: Storage, old: SnapshotManifest, without: Set[str], folder: Path) -> SnapshotManifest:
    """Write new files into `folder`, without these ids, for the splits that contain any of them.

    Returns the new manifest, or the old one if the snapshot contains none of the ids.
    """
    splits = {name: _rewrite_split(storage, old, name, without, folder) for name in old.splits}
    if splits == old.splits:
        return old
    changes = {
        "splits": splits,
        "content_hash": content_hash(splits),
        "rewritten_at": datetime.now(UTC),
        "forgotten": 0,
    }
    return old.model_copy(update=changes)


def _rewrite_split(
    storage: Storage, old: SnapshotManifest, name: str, without: Set[str], folder: Path
) -> SplitFile:
    split = old.splits[name]
    with storage.open(old.name, split.path) as file:
        written = _write(file, without, folder, f"data/{name}.parquet")
    if written.rows == split.rows:
        (folder / written.path).unlink()
        return split
    # A new name: a reader of the old file never gets parts of both.
    renamed = written.model_copy(update={"path": f"data/{name}-{written.sha256[:12]}.parquet"})
    (folder / written.path).rename(folder / renamed.path)
    return renamed


def _write(file: BinaryIO, without: Set[str], folder: Path, path: str) -> SplitFile:
    source = parquet.ParquetFile(file)
    unwanted = pa.array(sorted(without), pa.string())
    with closing(SplitWriter(folder, path, source.schema_arrow.remove_metadata())) as writer:
        for batch in source.iter_batches(_ROWS_AT_ONCE):
            writer.add(batch.filter(pc.invert(pc.is_in(batch.column("id"), unwanted))))
        return writer.finish()


TWINS = "near_duplicates.parquet"
_TWINS_SCHEMA = pa.schema({"id": pa.string(), "root": pa.string()})


def rewrite_twins(storage: Storage, manifest: SnapshotManifest, without: Set[str], folder: Path) -> None:
    """Write the near duplicates again, without texts and roots that must be forgotten."""
    if manifest.stratified:
        unwanted = pa.array(sorted(without), pa.string())
        with storage.open(manifest.name, TWINS) as file:
            table = parquet.read_table(file)
        for name in ("id", "root"):
            table = table.filter(pc.invert(pc.is_in(table[name], unwanted)))
        _write_twins(table.to_reader(), folder)


def _write_twins(batches: pa.RecordBatchReader, folder: Path) -> None:
    with parquet.ParquetWriter(folder / TWINS, _TWINS_SCHEMA, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
