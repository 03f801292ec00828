"""Readers of CSV and JSON bodies: from chunks of bytes to numbered rows, in constant memory.

A reader yields `(row, fields)`; `fields` is a `RowRefused` where that row alone cannot be read, and in JSON mostly
a `QuickSubmission`. What makes the rest of the body unreadable is raised as a Problem.
"""

import codecs
import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic_core import from_json

from core.web.problems import Malformed, TooLarge
from ingestion_api.bulk.columns import TOO_LONG, Row, RowRefused, check_columns
from ingestion_api.bulk.json_elements import split_elements
from ingestion_api.texts.quick_submission import QuickSubmission, read_quickly
from ingestion_api.texts.schemas import ROW_BYTES

Reader = Callable[[Iterable[bytes]], Iterator[Row]]

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
        return TOO_LONG
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


def read_csv(chunks: Iterable[bytes]) -> Iterator[Row]:
    """Read CSV with a header; yields a dict of strings by column name.

    Raises:
        Malformed: no header, or quotes that do not pair; rows before the fault have been yielded.
        TooLarge: the header is over its limit; or a row is, so that the next one cannot be found.
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
    check_columns(header)
    if twice := sorted(name for name, count in Counter(header).items() if count > 1):
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
