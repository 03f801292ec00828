"""Readers of bulk bodies: from chunks of bytes to numbered rows, in constant memory.

A reader yields `(row, fields)`; `fields` is a `RowRefused` where that row alone cannot be read, and in JSON mostly
a `QuickSubmission`. What makes the rest of the body unreadable is raised as a Problem.
"""

import codecs
import csv
import errno
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import pyarrow as pa
from pyarrow import parquet
from pydantic_core import from_json

from core.problems import Malformed, TooLarge, Unavailable
from ingestion_api.json_elements import split_elements
from ingestion_api.quick_submission import QuickSubmission, read_quickly
from ingestion_api.schemas import ROW_BYTES


class RowRefused(Exception):
    """One row cannot be read."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


Row = tuple[int, Any | RowRefused]
Reader = Callable[[Iterable[bytes]], Iterator[Row]]

_TOO_LONG = RowRefused("row_too_large", f"longer than {ROW_BYTES} bytes")
_PARQUET_ROWS = 1000
_PARQUET_BUFFER_BYTES = 64 * 1024

csv.field_size_limit(ROW_BYTES)


def read_ndjson(chunks: Iterable[bytes]) -> Iterator[Row]:
    """Read one JSON value a line; blank lines are counted but not yielded."""
    for number, line in enumerate(_split_lines(chunks), 1):
        if line is None or line.strip():
            yield number, _parse(line)


def read_json_array(chunks: Iterable[bytes]) -> Iterator[Row]:
    """Read the elements of one JSON array.

    Raises:
        Malformed: not a JSON array; elements before the fault have been yielded.
        TooLarge: an element is over the limit, so that the next one cannot be found.
    """
    return ((number, _parse(element)) for number, element in enumerate(split_elements(chunks), 1))


def _parse(value: bytes | None) -> QuickSubmission | Any | RowRefused:
    if value is None or len(value) > ROW_BYTES:
        return _TOO_LONG
    if quick := read_quickly(value):
        return quick
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError as error:
        return RowRefused("malformed_json", f"not JSON: {error}")


def _split_lines(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    """Yield lines without their ends; None for one that is over the limit, whose bytes are dropped."""
    rest, dropping, first = b"", False, True
    for chunk in chunks:
        if first:
            chunk, first = chunk.removeprefix(codecs.BOM_UTF8), False  # noqa: PLW2901 - the mark is no content
        *lines, last = chunk.split(b"\n")
        for line in lines:
            whole = rest + line
            yield None if dropping or len(whole) > ROW_BYTES else whole
            rest, dropping = b"", False
        rest += last
        if len(rest) > ROW_BYTES:
            rest, dropping = b"", True
    if dropping or rest:
        yield None if dropping else rest


def read_parquet(chunks: Iterable[bytes]) -> Iterator[Row]:
    """Read a Parquet file; yields a dict by column name. Its index is at the end, so it passes through a file.

    Raises:
        Malformed: not a Parquet file, or a damaged one; rows before the fault have been yielded.
        Unavailable: the disk that holds temporary files is full.
    """
    # Unbuffered: closing a buffered one would try again to write what did not fit.
    with tempfile.TemporaryFile(buffering=0) as file:
        _write(file, chunks)
        file.seek(0)
        try:
            # Else pyarrow would hold a whole row group, and some files have one only.
            reader = parquet.ParquetFile(file, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES)
            batches = reader.iter_batches(_PARQUET_ROWS)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise Malformed(f"The body is not readable Parquet: {reason}", code="malformed_parquet") from None


def _write(file: IO[bytes], chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise Unavailable("There is no room for the file just now. Send it later.", code="disk_full") from None


def read_csv(chunks: Iterable[bytes]) -> Iterator[Row]:
    """Read CSV with a header; yields a dict of strings by column name.

    Raises:
        Malformed: no header, or quotes that do not pair; rows before the fault have been yielded.
        TooLarge: a row is over the limit, so that the next one cannot be found.
    """
    lines = _CsvLines(chunks)
    # `strict` refuses what other programs would read in another way.
    rows = csv.reader(lines, strict=True)
    try:
        header = _check_header(next(rows, []))
        for number, cells in enumerate((row for row in rows if row), 1):
            lines.bytes_since_row = 0
            yield number, _row_fields(header, cells)
    except csv.Error as error:
        raise Malformed(f"Line {rows.line_num} of the CSV: {error}.", code="malformed_csv") from None


def _check_header(header: list[str]) -> list[str]:
    if not any(header):
        raise Malformed("The CSV has no header.", code="malformed_csv")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise Malformed(f"The CSV's header names a column twice: {', '.join(twice)}.", code="malformed_csv")
    return header


def _row_fields(header: list[str], cells: list[str]) -> dict[str, str] | RowRefused:
    if len(cells) != len(header):
        return RowRefused("wrong_cell_count", f"{len(cells)} cells, but the header has {len(header)}")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return RowRefused("malformed_utf8", "not UTF-8")
    return dict(zip(header, cells, strict=True))


class _CsvLines:
    """The body's lines with their ends, as csv wants them. Bytes that are not UTF-8 become surrogates."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._lines = self._split(chunks)
        self.bytes_since_row = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.bytes_since_row += len(line)
        if self.bytes_since_row > ROW_BYTES:
            raise TooLarge(f"A row is longer than {ROW_BYTES} bytes.", code="row_too_large")
        return line

    def _split(self, chunks: Iterable[bytes]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        rest = ""
        for chunk in chunks:
            *lines, rest = (rest + decoder.decode(chunk)).split("\n")
            yield from (f"{line}\n" for line in lines)
            if len(rest) > ROW_BYTES:
                raise TooLarge(f"A row is longer than {ROW_BYTES} bytes.", code="row_too_large")
        if rest := rest + decoder.decode(b"", final=True):
            yield rest
