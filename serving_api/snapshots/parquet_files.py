"""The Parquet file of a split: the same rows in the same order make the same bytes, however they arrive."""

import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from serving_api.export_formats import COMPARED, DICTIONARY, with_zone
from serving_api.snapshots.manifest import SplitFile

# A row group ends with whichever comes first; it grows by whole pieces.
_GROUP_ROWS = 65_536
_GROUP_BYTES = 16 * 2**20
_PIECE_ROWS = 512
# What rows are long by.
_LONG = ("text", "metadata", "enrichment")
_ORDER = [("labelled_at", "ascending"), ("id", "ascending")]
_BLOOM_FALSE_POSITIVES = 0.05


class _HashingFile(io.RawIOBase):
    """Writes a file, and knows its hash and size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self.sha256.update(part)
        self.size += len(part)
        return self._file.write(part)

    def tell(self) -> int:
        return self.size


class SplitWriter:
    """Writes one split, row group by row group; holds the rows of one at most."""

    def __init__(self, folder: Path, path: str, schema: pa.Schema) -> None:
        self._path = path
        self._schema = with_zone(schema)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = target.open("xb")
        self._hashing = _HashingFile(self._file)
        self._writer: parquet.ParquetWriter | None = None
        self._arrived: list[pa.RecordBatch] = []  # less than a piece
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
        """Write what is left, and say what the file holds."""
        if self._arrived_rows:
            self._add_piece(pa.Table.from_batches(self._arrived))
        if self._group_rows or self._writer is None:
            self._write_group()
        if self._writer:
            self._writer.close()
        self._file.close()
        return SplitFile(
            path=self._path,
            rows=self._rows,
            bytes=self._hashing.size,
            memory_bytes=self._memory_bytes,
            sha256=self._hashing.sha256.hexdigest(),
            labels=dict(sorted(self._labels.items())),
        )

    def abandon(self) -> None:
        """Let the file go."""
        self._file.close()

    def _add_piece(self, piece: pa.Table) -> None:
        self._group.append(piece)
        self._group_rows += len(piece)
        self._group_bytes += sum(pc.sum(pc.binary_length(piece[name])).as_py() or 0 for name in _LONG)
        if self._group_rows >= _GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        # In one piece: where the pieces end would decide where pages do.
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
        """Begin the file; its Bloom filters fit the first group, which is the largest, or the only one."""
        return parquet.ParquetWriter(
            self._hashing,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=DICTIONARY,
            write_statistics=["id", *COMPARED],
            write_page_index=True,
            sorting_columns=parquet.SortingColumn.from_ordering(self._schema, _ORDER),
            bloom_filter_options={"id": {"ndv": max(1, rows), "fpp": _BLOOM_FALSE_POSITIVES}},
        )
