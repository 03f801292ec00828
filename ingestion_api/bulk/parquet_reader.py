"""Reads Parquet bodies, in memory that depends neither on the file nor on what it expands to.

A column of strings is read as Arrow's dictionary: each value once, and a number a row. So a value that a thousand
rows share is held once, and the length of each row is known before the row is made. Arrow cannot read the strings
of lists and structs so; the limit of the process' memory bounds them.
"""

import errno
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from core.web.problems import Malformed, TooLarge, Unavailable
from ingestion_api.bulk.columns import TOO_LONG, Columns, Row, check_columns
from ingestion_api.bulk.decoding import PlainBody, check_expansion
from ingestion_api.texts.schemas import ROW_BYTES

_BATCH_ROWS = 5000  # each batch repeats its columns' dictionaries
_BUFFER_BYTES = 64 * 1024
# Rows of so many bytes together are made at once.
_PART_BYTES = 16 * 1024 * 1024

# Strings that repeat are stored once in a file.
_MOST_EXPANSION = 1000
# Each row counts for some bytes more: checking it is work, however short it is.
_ROW_COST_BYTES = 256

# Arrow reads the footer as a whole, into several times its length.
_FOOTER_BYTES = 16 * 1024 * 1024
_TAIL = struct.Struct("<I4s")


def read_parquet(chunks: Iterable[bytes], columns: Columns | None = None) -> Iterator[Row]:
    """Read a Parquet file; yields a dict by column name. Its index is at the end, so it passes through a file.

    `columns`: which are read; all, if it is not given.

    Raises:
        Malformed: not a Parquet file, or a damaged one; rows before the fault have been yielded.
        TooLarge: it has too many columns, or expands as only a bomb does.
        UnknownColumn: it lacks a column.
        MemoryError: a part of it expands to more than the process may hold.
        Unavailable: the disk that holds temporary files is full.
    """
    # Unbuffered: closing a buffered one would try again to write what did not fit.
    with tempfile.TemporaryFile(buffering=0) as file:
        file_bytes = _write(file, chunks)
        sent_bytes = chunks.sent_bytes if isinstance(chunks, PlainBody) else file_bytes
        try:
            yield from enumerate(_read_rows(file, columns, sent_bytes), 1)
        except MemoryError:  # also Arrow's, which is an ArrowException as well
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise Malformed(f"The body is not readable Parquet: {reason}", code="malformed_parquet") from None


def _write(file: IO[bytes], chunks: Iterable[bytes]) -> int:
    written = 0
    for chunk in chunks:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise Unavailable("There is no room for the file just now. Send it later.", code="disk_full") from None
        written += len(chunk)
    return written


def _read_rows(file: IO[bytes], columns: Columns | None, sent_bytes: int) -> Iterator[Any]:
    _check_footer(file)
    metadata = parquet.read_metadata(file)
    names = metadata.schema.to_arrow_schema().names
    check_columns(names, metadata.num_columns)
    wanted = names if columns is None else columns.wanted(names)
    check_expansion(_announced_bytes(metadata, wanted), sent_bytes, _MOST_EXPANSION)
    reader = parquet.ParquetFile(
        file,
        metadata=metadata,
        read_dictionary=_string_paths(metadata),
        pre_buffer=False,  # else pyarrow would hold a whole row group, and some files have one only
        buffer_size=_BUFFER_BYTES,
    )
    decoded_bytes = 0
    for batch in reader.iter_batches(_BATCH_ROWS, columns=wanted):
        lengths = _row_lengths(batch)
        decoded_bytes += sum(lengths) + len(lengths) * _ROW_COST_BYTES
        check_expansion(decoded_bytes, sent_bytes, _MOST_EXPANSION)
        yield from _make_rows(batch, lengths)


def _check_footer(file: IO[bytes]) -> None:
    """Refuse a footer that would take much memory, before Arrow reads it; Arrow refuses what is no footer."""
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


def _announced_bytes(metadata: parquet.FileMetaData, wanted: list[str]) -> int:
    """Return to how many bytes the file expands at least, if its footer says the truth."""
    read = set(wanted)
    paths = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
    places = [n for n, path in enumerate(paths) if path in read or path.partition(".")[0] in read]
    groups = (metadata.row_group(n) for n in range(metadata.num_row_groups))
    sizes: int = sum(group.column(n).total_uncompressed_size for group in groups for n in places)
    rows: int = metadata.num_rows
    return sizes + rows * _ROW_COST_BYTES


def _string_paths(metadata: parquet.FileMetaData) -> list[str]:
    """Return the columns of strings, without what is within lists and structs."""
    columns = (metadata.schema.column(n) for n in range(metadata.num_columns))
    return [c.path for c in columns if c.physical_type == "BYTE_ARRAY" and c.name == c.path]


def _row_lengths(batch: pa.RecordBatch) -> list[int]:
    """Return about how many bytes each row will have."""
    rows: int = batch.num_rows
    total = pa.repeat(pa.scalar(0, pa.int64()), rows)
    for column in batch.columns:
        values = column.storage if isinstance(column, pa.ExtensionArray) else column
        if _is_nested(values.type):
            # Taken as spread evenly: such rows are refused later anyway, unless they are empty.
            total = pc.add(total, pa.scalar(_total_length(values) // max(1, rows), pa.int64()))
        else:
            total = pc.add(total, _lengths(values))
    lengths: list[int] = total.to_pylist()
    return lengths


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))


def _lengths(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        return pc.fill_null(pc.take(_lengths(values.dictionary), values.indices), 0)
    if pa.types.is_binary(values.type) or pa.types.is_string(values.type):
        return pc.fill_null(pc.cast(pc.binary_length(values), pa.int64()), 0)
    return pa.repeat(pa.scalar(max(1, values.nbytes // max(1, len(values))), pa.int64()), len(values))


def _total_length(values: pa.Array) -> int:
    if not _is_nested(values.type):
        return pc.sum(_lengths(values)).as_py() or 0
    if pa.types.is_map(values.type):
        return _total_length(values.keys) + _total_length(values.items)
    if pa.types.is_struct(values.type):
        return sum(map(_total_length, values.flatten()))
    return _total_length(values.flatten())


def _make_rows(batch: pa.RecordBatch, lengths: list[int]) -> Iterator[Any]:
    """Make the rows of a batch, a bounded number of bytes at a time."""
    start = size = 0
    for number, length in enumerate(lengths):
        if length > ROW_BYTES:
            yield from _make_part(batch, start, number)
            yield TOO_LONG
            start, size = number + 1, 0
        elif size + length > _PART_BYTES:
            yield from _make_part(batch, start, number)
            start, size = number, length
        else:
            size += length
    yield from _make_part(batch, start, len(lengths))


def _make_part(batch: pa.RecordBatch, start: int, end: int) -> list[Any]:
    part = batch.slice(start, end - start)
    plain = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in part.columns]
    rows: list[Any] = pa.RecordBatch.from_arrays(plain, names=part.schema.names).to_pylist()
    return rows
