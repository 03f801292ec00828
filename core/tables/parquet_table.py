"""Reads Parquet bodies in constant memory.

Arrow reads each column of strings as a dictionary: each value once, and a number a row. So a value that a thousand
rows share is held once, and the length of each row is known before the row is made. Arrow cannot do that for the
strings of lists and structs; the memory limit of the process bounds those.

Only the columns that are wanted are read. Cells become None, str, bytes, bool, int, float, Decimal, and lists
and dicts of these; dates and times become ISO 8601 text. If a batch cannot be converted, its cells are
converted one by one, so that a bad cell rejects only its row.
"""

import os
import struct
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from core.tables.decoding import PlainBody, check_expansion, spooled
from core.tables.rows import ROW_BYTES, TOO_LONG, Row, RowRefused, Table, TableColumn, check_columns
from core.web.problems import Malformed, TooLarge

_BATCH_ROWS = 5000  # each batch repeats its columns' dictionaries
_BUFFER_BYTES = 64 * 1024
# The most bytes of rows that are converted together.
_PART_BYTES = 16 * 1024 * 1024

# Strings that repeat are stored once in a file.
_MOST_EXPANSION = 1000
# Each row counts for some bytes more: checking it is work, however short it is.
_ROW_COST_BYTES = 256

# Arrow reads the footer as a whole, into several times its length.
_FOOTER_BYTES = 16 * 1024 * 1024
_TAIL = struct.Struct("<I4s")

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # of a second's parts
_UNPRINTABLE = "<value out of range"  # Arrow's text of a date that no calendar has

Convert = Callable[[pa.Array], list[Any]]


def open_parquet(chunks: Iterable[bytes], body: PlainBody) -> Table:
    """Read the schema. The index of a Parquet file is at its end, so the body passes through a file.

    `chunks` are those of `body`, whose `sent_bytes` is needed to recognise bombs.

    Reading the rows raises:
        Malformed: the file is damaged; rows before the fault have been yielded.
        TooLarge: it expands as only a bomb does.
        MemoryError: a part of it expands to more than the process may hold.

    Raises:
        Malformed: not a Parquet file.
        TooLarge: it has too many columns, or too long a footer.
        Unavailable: the disk that holds temporary files is full.
    """
    reading = _hold_open(chunks, body)
    metadata, schema = next(reading)
    check_columns(schema.names, metadata.num_columns)
    columns = [TableColumn(field.name.strip(), _describe_type(field.type)) for field in schema]

    def read(wanted: Sequence[int]) -> Iterator[Row]:
        reading.send(wanted)
        return reading

    return Table("parquet", columns, read)


def _hold_open(chunks: Iterable[bytes], body: PlainBody) -> Generator[Any, Sequence[int], None]:
    """Yield the metadata and the schema; then take the positions that are wanted, and yield the rows.

    A generator, so that the file is closed when the reader stops early.
    """
    with spooled(chunks) as file:
        try:
            _check_footer(file)
            metadata = parquet.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _malformed(error) from None
        wanted = yield metadata, schema
        yield None
        try:
            yield from enumerate(_read_rows(file, metadata, schema, wanted, body.sent_bytes), 1)
        except MemoryError:  # also Arrow's, which is an ArrowException as well
            raise
        except (pa.ArrowException, OSError) as error:
            raise _malformed(error) from None


def _malformed(error: Exception) -> Malformed:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Malformed(f"The body is not readable Parquet: {reason}", code="malformed_parquet")


def _describe_type(kind: pa.DataType) -> str:
    """Return the name of a type as users know it."""
    if isinstance(kind, pa.BaseExtensionType):
        return "uuid" if kind.extension_name == "arrow.uuid" else _describe_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _describe_type(kind.value_type)
    return next((name for name, is_such in _TYPES.items() if is_such(kind)), str(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    is_variable = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return bool(is_variable or pa.types.is_fixed_size_binary(kind))


_TYPES: dict[str, Callable[[pa.DataType], bool]] = {
    "string": _is_string,
    "binary": _is_binary,
    "boolean": pa.types.is_boolean,
    "integer": pa.types.is_integer,
    "number": pa.types.is_floating,
    "decimal": pa.types.is_decimal,
    "date": pa.types.is_date,
    "timestamp": pa.types.is_timestamp,
    "time": pa.types.is_time,
    "duration": pa.types.is_duration,
    "null": pa.types.is_null,
    "struct": pa.types.is_struct,
    "map": pa.types.is_map,
    "list": pa.types.is_nested,
}


def _check_footer(file: IO[bytes]) -> None:
    """Refuse a footer that would take too much memory, before Arrow reads it."""
    if file.seek(0, os.SEEK_END) >= _TAIL.size:
        file.seek(-_TAIL.size, os.SEEK_END)
        length, magic = _TAIL.unpack(file.read(_TAIL.size))
        if magic == b"PAR1" and length > _FOOTER_BYTES:
            raise TooLarge(
                f"The file's footer has {length:,} bytes, and may have {_FOOTER_BYTES:,}. "
                "Write it with fewer columns or longer row groups.",
                code="parquet_footer_too_large",
            )
    file.seek(0)


def _read_rows(
    file: IO[bytes], metadata: parquet.FileMetaData, schema: pa.Schema, wanted: Sequence[int], sent_bytes: int
) -> Iterator[Any]:
    leaves = _find_leaves(schema, wanted)
    check_expansion(_announced_bytes(metadata, leaves), sent_bytes, _MOST_EXPANSION)
    reader = parquet.ParquetFile(
        file,
        metadata=metadata,
        read_dictionary=_string_paths(metadata, leaves),
        pre_buffer=False,  # else pyarrow would hold a whole row group, and some files have one only
        buffer_size=_BUFFER_BYTES,
    )
    names = [schema.names[position] for position in wanted]
    # Of the file's columns in their order; by position, since names may be there twice.
    read = sorted(set(wanted))
    order = [read.index(position) for position in wanted]
    groups = list(range(metadata.num_row_groups))
    decoded_bytes = 0
    for batch in reader.reader.iter_batches(
        _BATCH_ROWS, row_groups=groups, column_indices=leaves, use_threads=True
    ):
        arrays = [batch.column(place) for place in order]
        lengths = _row_lengths(batch.num_rows, arrays)
        decoded_bytes += sum(lengths) + len(lengths) * _ROW_COST_BYTES
        check_expansion(decoded_bytes, sent_bytes, _MOST_EXPANSION)
        yield from _make_rows(arrays, names, lengths)


def _find_leaves(schema: pa.Schema, wanted: Sequence[int]) -> list[int]:
    """Return the places of the columns as Parquet counts them: each field within a struct is one."""
    chosen = set(wanted)
    columns = (position for position, field in enumerate(schema) for _ in range(_count_leaves(field.type)))
    return [leaf for leaf, position in enumerate(columns) if position in chosen]


def _count_leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _count_leaves(kind.storage_type)
    if not pa.types.is_nested(kind):
        return 1
    return sum(_count_leaves(kind.field(place).type) for place in range(kind.num_fields))


def _announced_bytes(metadata: parquet.FileMetaData, leaves: Sequence[int]) -> int:
    """Return to how many bytes the file expands at least, if its footer says the truth."""
    groups = (metadata.row_group(n) for n in range(metadata.num_row_groups))
    sizes: int = sum(group.column(n).total_uncompressed_size for group in groups for n in leaves)
    rows: int = metadata.num_rows
    return sizes + rows * _ROW_COST_BYTES


def _string_paths(metadata: parquet.FileMetaData, leaves: Sequence[int]) -> list[str]:
    """Return the top-level columns of strings."""
    columns = (metadata.schema.column(n) for n in leaves)
    return [c.path for c in columns if c.physical_type == "BYTE_ARRAY" and c.name == c.path]


def _row_lengths(rows: int, arrays: Sequence[pa.Array]) -> list[int]:
    """Return about how many bytes each row will have."""
    total = pa.repeat(pa.scalar(0, pa.int64()), rows)
    for array in arrays:
        values = array.storage if isinstance(array, pa.ExtensionArray) else array
        if pa.types.is_nested(values.type):
            # Taken as spread evenly: to look into each row would take longer than to read it.
            total = pc.add(total, pa.scalar(_total_length(values) // max(1, rows), pa.int64()))
        else:
            total = pc.add(total, _lengths(values))
    lengths: list[int] = total.to_pylist()
    return lengths


def _lengths(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        return pc.fill_null(pc.take(_lengths(values.dictionary), values.indices), 0)
    if _is_string(values.type) or _is_binary(values.type):
        return pc.fill_null(pc.cast(pc.binary_length(values), pa.int64()), 0)
    return pa.repeat(pa.scalar(max(1, values.nbytes // max(1, len(values))), pa.int64()), len(values))


def _total_length(values: pa.Array) -> int:
    if not pa.types.is_nested(values.type):
        return pc.sum(_lengths(values)).as_py() or 0
    if pa.types.is_map(values.type):
        return _total_length(values.keys) + _total_length(values.items)
    if pa.types.is_struct(values.type):
        return sum(map(_total_length, values.flatten()))
    return _total_length(values.flatten())


def _make_rows(arrays: Sequence[pa.Array], names: Sequence[str], lengths: list[int]) -> Iterator[Any]:
    """Make the rows of a batch, a bounded number of bytes at a time."""
    start = size = 0
    for number, length in enumerate(lengths):
        if length > ROW_BYTES:
            yield from _make_part(arrays, names, start, number)
            yield TOO_LONG
            start, size = number + 1, 0
        elif size + length > _PART_BYTES:
            yield from _make_part(arrays, names, start, number)
            start, size = number, length
        else:
            size += length
    yield from _make_part(arrays, names, start, len(lengths))


def _make_part(arrays: Sequence[pa.Array], names: Sequence[str], start: int, end: int) -> Iterator[Any]:
    columns, has_refused = [], False
    for array, name in zip(arrays, names, strict=True):
        cells, refused = _convert_cells(array.slice(start, end - start), name)
        columns.append(cells)
        has_refused |= refused
    # A file may have rows without any column that is wanted.
    rows: Iterator[Any] = zip(*columns, strict=True) if columns else iter([()] * (end - start))
    if not has_refused:
        yield from rows
        return
    for row in rows:
        bad = next((cell for cell in row if isinstance(cell, RowRefused)), None)
        if bad is not None:
            readable = tuple(None if isinstance(cell, RowRefused) else cell for cell in row)
            yield RowRefused(bad.code, bad.detail, readable)
        else:
            yield row


def _convert_cells(array: pa.Array, name: str) -> tuple[list[Any], bool]:
    """Return the cells, and whether a RowRefused replaces some of them."""
    convert = _find_converter(array.type)
    try:
        return convert(array), False
    except (pa.ArrowException, ValueError, OverflowError):
        pass
    cells: list[Any] = []
    for place in range(len(array)):
        try:
            cells += convert(array.slice(place, 1))
        except UnicodeDecodeError as error:
            cells.append(RowRefused("malformed_utf8", f"the cell {name} is not UTF-8 at byte {error.start}"))
        except (pa.ArrowException, ValueError, OverflowError) as error:
            reason = str(error).splitlines()[0][:200]
            cells.append(RowRefused("unreadable_cell", f"the cell {name} cannot be read: {reason}"))
    return cells, True


def _find_converter(kind: pa.DataType) -> Convert:
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return lambda array: [None if cell is None else str(cell) for cell in array.to_pylist()]
        return lambda array: _find_converter(kind.storage_type)(array.storage)
    if pa.types.is_dictionary(kind):
        return lambda array: _find_converter(kind.value_type)(array.dictionary_decode())
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return _to_iso
    if pa.types.is_duration(kind):
        unit = 10 ** _DIGITS[kind.unit]
        return lambda array: [
            None if count is None else _iso_duration(count, unit) for count in array.cast(pa.int64()).to_pylist()
        ]
    return lambda array: list(array.to_pylist())


def _iso_duration(count: int, unit: int) -> str:
    """Return a duration of `count` parts of a second, `unit` of which are one, as in ISO 8601."""
    days, rest = divmod(abs(count), 86_400 * unit)
    seconds, part = divmod(rest, unit)
    fraction = f".{part * 10**9 // unit:09}".rstrip("0") if part else ""
    time = f"T{seconds}{fraction}S" if rest else ""
    return f"{'-' if count < 0 else ''}P{f'{days}D' if days or not rest else ''}{time}"


def _to_iso(array: pa.Array) -> list[Any]:
    """Return dates and times as text, in UTC where they have a zone: Arrow need not know the zone for that."""
    zone = ""
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        array, zone = array.cast(pa.timestamp(array.type.unit)), "Z"
    if pa.types.is_date64(array.type):
        array = array.cast(pa.timestamp("ms")).cast(pa.date32())
    words = array.cast(pa.string()).to_pylist()
    if any(word is not None and word.startswith(_UNPRINTABLE) for word in words):
        raise ValueError("no calendar has this date")
    return [None if word is None else word.replace(" ", "T") + zone for word in words]
