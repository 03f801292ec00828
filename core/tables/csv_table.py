"""Reads CSV: a header, then rows of cells between delimiters."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from core.tables.rows import ROW_BYTES, TOO_LONG, Row, RowRefused, Table, TableColumn, check_columns
from core.tables.text_lines import Characters, guess_charset, split_lines
from core.web.problems import Malformed, TooLarge

DELIMITERS = {",": ",", ";": ";", "|": "|", "tab": "\t"}
_NEWLINE = re.compile("[\r\n]")
_CONTROL = re.compile(r"[\x01-\x08\x0e-\x1f]")
_EXCEL_DELIMITER = re.compile('"?sep=([,;|\t])"?\r?\n')  # a first line that Excel reads, and some programs write

# The most characters that are read again after quotes that never close: hostile lines could each cost 1 MiB.
_REREAD_CHARACTERS = 64 * ROW_BYTES

_FAULTS = {
    "unexpected end of data": "a quote is opened and never closed",
    "new-line character seen": "a carriage return outside of quotes; put the cell in quotes",
    "expected after": 'text behind a closing quote; write "" for a quote within a cell',
}

csv.field_size_limit(ROW_BYTES)


def open_csv(chunks: Iterable[bytes], charset: str | None, delimiter: str | None) -> Table:
    """Read the header. `delimiter`: the character; None finds out which of `DELIMITERS` it is.

    Reading the rows raises:
        Malformed: quotes make so much of the body unreadable that it is no CSV.

    Raises:
        Malformed: no header, or one that cannot be read.
        TooLarge: the header is over its limit.
    """
    characters = Characters(chunks, charset)
    lines = _Lines(characters)
    try:
        first = _first_line(lines)
        if told := _EXCEL_DELIMITER.fullmatch(first):
            delimiter = delimiter or told[1]
            next(lines)
        delimiter = delimiter or _find_delimiter(first)
        # `strict` refuses what other programs would read in another way.
        rows = csv.reader(lines, strict=True, delimiter=delimiter)
        header = next(rows)
    except _Overlong:
        raise TooLarge(f"The header is longer than {ROW_BYTES} bytes.", code="header_too_large") from None
    except csv.Error as error:
        raise Malformed(f"The header, in line {lines.start}: {_fault(error)}.", code="malformed_csv") from None
    if any(map(_CONTROL.search, header)):
        detail = "has control characters: the body is no CSV, or is compressed twice"
        raise Malformed(f"The header, in line {lines.start}, {detail}.", code="malformed_csv")
    check_columns(header)
    names = [name.encode(errors="surrogateescape").decode(errors="replace").strip() for name in header]
    reader = _CsvRows(names, lines, rows, characters)
    columns = [TableColumn(name) for name in names]
    return Table("csv", columns, reader.read, True, characters.charset, delimiter)


def _first_line(lines: "_Lines") -> str:
    """Return the first line that is not blank; it is read again."""
    for line in lines:
        if line.strip():
            lines.give_back()
            return line
        lines.begin()
    raise Malformed("The CSV has no header.", code="malformed_csv")


def _find_delimiter(header: str) -> str:
    """Return the delimiter that makes the most columns of the header."""

    def count(delimiter: str) -> int:
        return len(next(csv.reader([header], delimiter=delimiter), []))

    return max(DELIMITERS.values(), key=count)


def _fault(error: csv.Error) -> str:
    return next((words for said, words in _FAULTS.items() if said in str(error)), str(error))


class _Overlong(Exception):
    """The row is longer than a row may be."""


@dataclass(slots=True)
class _CsvRows:
    """The rows behind the header. `likely`: the encoding that the body probably has, once that is known."""

    names: list[str]
    lines: "_Lines"
    rows: Iterator[list[str]]
    characters: Characters
    likely: str | None = None

    def read(self, wanted: Sequence[int]) -> Iterator[Row]:
        """Yield the cells of all columns; those that are wanted must be in the body's encoding."""
        number, width = 0, len(self.names)
        lines, rows = self.lines, self.rows
        while True:
            lines.begin()
            try:
                cells = next(rows)
            except StopIteration:
                return
            except (csv.Error, _Overlong) as error:
                number += 1
                yield number, self._refuse(error)
                lines.give_back(after=1)
                continue
            number += 1
            if not cells:
                continue  # a blank line counts
            if len(cells) != width:
                detail = f"{len(cells)} cells, but the header has {width}; see line {lines.start}"
                yield number, RowRefused("wrong_cell_count", detail)
            elif self.characters.wrong_bytes and (refused := self._check_encoding(cells, wanted)):
                yield number, refused
            else:
                yield number, cells

    def _refuse(self, error: csv.Error | _Overlong) -> RowRefused:
        if not isinstance(error, _Overlong):
            return RowRefused("malformed_csv", f"line {self.lines.start}: {_fault(error)}")
        if len(self.lines.row) == 1:
            return TOO_LONG
        detail = f"line {self.lines.start}: a quote is opened and not closed within {ROW_BYTES} bytes"
        return RowRefused(TOO_LONG.code, detail)

    def _check_encoding(self, cells: list[str], wanted: Sequence[int]) -> RowRefused | None:
        for position in wanted:
            try:
                cells[position].encode()
            except UnicodeEncodeError as error:
                name, charset = self.names[position], self.characters.charset
                offset = len(cells[position][: error.start].encode())
                detail = f"the cell {name} is not {charset} at byte {offset}"
                if self.likely is None:
                    self.likely = guess_charset(self.characters.wrong_bytes) or ""
                if self.likely:
                    detail += f"; the file is probably {self.likely}: send charset={self.likely}"
                return RowRefused("malformed_utf8" if charset == "utf-8" else "malformed_charset", detail)
        return None


class _Lines:
    """The body's lines with their ends, as `csv` needs them. `start` is the line in which the row begins.

    The lines of a row are kept in `row` until the next one begins: a quote that never closes would take the rows
    behind it.
    """

    def __init__(self, characters: Iterable[str]) -> None:
        self._lines = _split(characters)
        self._again: deque[str | None] = deque()
        self.row: list[str | None] = []
        self._row_bytes = 0
        self._reread = 0
        self.start = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        if line is None:
            self.row.append(None)
            raise _Overlong
        self.row.append(line)
        self._row_bytes += len(line) if line.isascii() else len(line.encode(errors="replace"))
        if self._row_bytes > ROW_BYTES:
            raise _Overlong
        return line

    def begin(self) -> None:
        """Begin a new row."""
        self.start += len(self.row)
        self.row.clear()
        self._row_bytes = 0

    def give_back(self, after: int = 0) -> None:
        """Read the lines of the row again, but for the first `after` of them.

        Raises:
            Malformed: this happened too often.
        """
        again = self.row[after:]
        self._again.extendleft(reversed(again))
        del self.row[after:]
        self._row_bytes = 0
        self._reread += sum(len(line or "") for line in again)
        if self._reread > _REREAD_CHARACTERS:
            raise Malformed(
                f"Line {self.start}: too many quotes are opened and never closed. Check how the file quotes its "
                "cells, and its delimiter.",
                code="malformed_csv",
            )


def _split(characters: Iterable[str]) -> Iterator[str | None]:
    """Split at line feeds; at carriage returns where the first line ends with one, as on old Macs."""
    source = iter(characters)
    held: list[str] = []
    found = None
    for chunk in source:
        held.append(chunk)
        found = _NEWLINE.search(chunk)
        if found or sum(map(len, held)) > ROW_BYTES:
            break
    newline = "\n"
    if found and found[0] == "\r" and "\n" not in held[-1]:
        held.append(next(source, ""))
        if "\n" not in held[-1]:
            newline = "\r"
    for line in split_lines(chain(held, source), newline):
        yield line if line is None else f"{line}\n"
