"""The kinds of files that are exported, and how batches of rows become their bytes."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from serving_api import columns as export_columns
from serving_api.columns import COLUMNS, Kind

Chunk = bytes | memoryview
Encode = Callable[[pa.Schema, Iterable[pa.RecordBatch]], Iterator[Chunk]]

# A Parquet row group, or an Arrow batch, ends with whichever comes first.
GROUP_ROWS = 65_536
_GROUP_BYTES = 16 * 2**20

# To try a dictionary for the other columns costs a third of the time, and finds nothing.
DICTIONARY = [name for name, column in COLUMNS.items() if column.origin.repeats]
# What readers filter by. To find the least and the greatest text costs time as well.
COMPARED = [
    name for name, c in COLUMNS.items() if c.origin.repeats or c.kind in {Kind.NUMBER, Kind.FLAG, Kind.MOMENT}
]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file."""

    name: str  # the ending of the path, and of the file
    media_type: str
    columns: str  # select list
    encode: Encode


class _Sink(io.RawIOBase):
    """Keeps what a writer writes until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _lines(head: bytes, _: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Chunk]:
    """Yield texts that are whole lines already: Arrow keeps those of a batch one behind the other."""
    if head:
        yield head
    for batch in batches:
        column = batch.column(0)
        _, offsets, data = column.buffers()
        bounds = memoryview(offsets).cast("b").cast("i")
        yield memoryview(data).cast("B")[bounds[column.offset] : bounds[column.offset + len(column)]]


def _arrow_stream(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Chunk]:
    sink, schema = _Sink(), with_zone(schema)
    with pa.ipc.new_stream(sink, schema) as writer:
        yield sink.take()
        for table in _groups(batches):
            writer.write_table(table.cast(schema).combine_chunks())
            yield sink.take()
    yield sink.take()


def _parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Chunk]:
    sink, schema = _Sink(), with_zone(schema)
    options = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": DICTIONARY,
        "write_statistics": COMPARED,
    }
    with parquet.ParquetWriter(sink, schema, **options) as writer:
        for table in _groups(batches):
            writer.write_table(table.cast(schema), row_group_size=len(table))
            yield sink.take()
    yield sink.take()


def with_zone(schema: pa.Schema) -> pa.Schema:
    """Say that the moments are UTC: DuckDB holds them without a zone."""
    for name, column in COLUMNS.items():
        if column.kind is Kind.MOMENT:
            schema = schema.set(schema.get_field_index(name), pa.field(name, pa.timestamp("us", "UTC")))
    return schema


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


_HEADER = export_columns.csv_header().encode()
_BYTE_ORDER_MARK = "\ufeff".encode()  # spreadsheets take a file without it for another encoding

PARQUET = Format("parquet", "application/vnd.apache.parquet", export_columns.typed(), _parquet)
ARROW = Format("arrow", "application/vnd.apache.arrow.stream", export_columns.typed(), _arrow_stream)
NDJSON = Format("ndjson", "application/x-ndjson", export_columns.json_line(), partial(_lines, b""))
CSV = Format("csv", "text/csv", export_columns.csv_line(for_spreadsheet=False), partial(_lines, _HEADER))
CSV_FOR_SPREADSHEETS = Format(
    "csv", "text/csv", export_columns.csv_line(for_spreadsheet=True), partial(_lines, _BYTE_ORDER_MARK + _HEADER)
)
