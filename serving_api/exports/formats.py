"""The file formats of exports: how batches of rows become a file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import pyarrow as pa
from pyarrow import parquet

from serving_api import columns as export_columns
from serving_api.columns import COLUMNS, Kind

Batches = Iterable[pa.RecordBatch]
Write = Callable[[BinaryIO, pa.Schema, Batches], None]

# A Parquet row group, or an Arrow batch, ends with whichever comes first.
GROUP_ROWS = 65_536
_GROUP_BYTES = 16 * 2**20

# Trying a dictionary for the other columns costs a third of the time and gains nothing.
DICTIONARY = [name for name, column in COLUMNS.items() if column.origin.repeats]
# Columns that readers filter by. Statistics of the texts themselves would cost time as well.
COMPARED = [
    name for name, c in COLUMNS.items() if c.origin.repeats or c.kind in {Kind.NUMBER, Kind.FLAG, Kind.MOMENT}
]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format."""

    name: str  # extension of the path, and of the file
    media_type: str
    columns: str  # select list
    write: Write


def _write_lines(head: bytes, file: BinaryIO, _: pa.Schema, batches: Batches) -> None:
    """Write the one text column, whose values are whole lines: Arrow keeps those of a batch side by side."""
    file.write(head)
    for batch in batches:
        column = batch.column(0)
        _, offsets, data = column.buffers()
        bounds = memoryview(offsets).cast("b").cast("i")
        file.write(memoryview(data).cast("B")[bounds[column.offset] : bounds[column.offset + len(column)]])


def _write_arrow(
    new_writer: Callable[[BinaryIO, pa.Schema], pa.ipc.RecordBatchStreamWriter],
    file: BinaryIO,
    schema: pa.Schema,
    batches: Batches,
) -> None:
    schema = with_zone(schema)
    with new_writer(file, schema) as writer:
        for table in _groups(batches):
            writer.write_table(table.cast(schema).combine_chunks())


def _write_parquet(file: BinaryIO, schema: pa.Schema, batches: Batches) -> None:
    schema = with_zone(schema)
    options = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": DICTIONARY,
        "write_statistics": COMPARED,
    }
    with parquet.ParquetWriter(file, schema, **options) as writer:
        for table in _groups(batches):
            writer.write_table(table.cast(schema), row_group_size=len(table))


def with_zone(schema: pa.Schema) -> pa.Schema:
    """Return the schema with UTC as the zone of its timestamps: DuckDB holds them without a zone."""
    for name, column in COLUMNS.items():
        if column.kind is Kind.MOMENT:
            schema = schema.set(schema.get_field_index(name), pa.field(name, pa.timestamp("us", "UTC")))
    return schema


def _groups(batches: Batches) -> Iterable[pa.Table]:
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
_BYTE_ORDER_MARK = "\ufeff".encode()  # without it spreadsheets assume another encoding
_TYPED = export_columns.typed()

PARQUET = Format("parquet", "application/vnd.apache.parquet", _TYPED, _write_parquet)
ARROW = Format("arrow", "application/vnd.apache.arrow.file", _TYPED, partial(_write_arrow, pa.ipc.new_file))
ARROW_STREAM = Format(
    "arrows", "application/vnd.apache.arrow.stream", _TYPED, partial(_write_arrow, pa.ipc.new_stream)
)
NDJSON = Format("ndjson", "application/x-ndjson", export_columns.json_line(), partial(_write_lines, b""))
CSV = Format("csv", "text/csv", export_columns.csv_line(for_spreadsheet=False), partial(_write_lines, _HEADER))
CSV_FOR_SPREADSHEETS = Format(
    "csv",
    "text/csv",
    export_columns.csv_line(for_spreadsheet=True),
    partial(_write_lines, _BYTE_ORDER_MARK + _HEADER),
)
