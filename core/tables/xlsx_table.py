"""Reads the first sheet of an .xlsx with calamine.

calamine holds the whole sheet, empty cells included, and ends the process where the memory does not suffice. So
the body is refused before that: by the size of its parts, and by the farthest cell that any sheet names.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, time, timedelta
from typing import IO, Any

import msgspec
from python_calamine import CalamineError, CalamineWorkbook

from core.tables.decoding import spooled
from core.tables.rows import ROW_BYTES, TOO_LONG, Row, RowRefused, Table, TableColumn, check_columns
from core.web.problems import Malformed, TooLarge

_MOST_BYTES = 128 * 1024 * 1024  # of all parts, unpacked
_MOST_CELLS = 4_000_000
_STEP_BYTES = 1024 * 1024
_OVERLAP_BYTES = 64
_CELL = re.compile(rb"""\sr\s*=\s*["']([A-Za-z]{1,4})?([0-9]{1,9})["']""")
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"
_REASONS = {"Cannot detect file format": "it is an archive of other files, to be unpacked"}
_ADVICE = "Save the sheet as CSV UTF-8, and send that."


def open_xlsx(chunks: Iterable[bytes]) -> Table:
    """Read the header, which is the first row that is not empty; the body passes through a file.

    Raises:
        Malformed: it is no .xlsx, or has no header.
        TooLarge: it takes too much memory.
        Unavailable: the disk that holds temporary files is full.
    """
    with spooled(chunks) as file:
        file.seek(0)
        if file.read(len(_OLD_EXCEL)) == _OLD_EXCEL:
            raise _malformed("it is an old .xls, or protected by a password")
        try:
            _check_size(file)
            file.seek(0)
            rows = CalamineWorkbook.from_filelike(file).get_sheet_by_index(0).iter_rows()
        except (CalamineError, zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise _malformed(_REASONS.get(str(error), str(error))) from None
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # what pyo3 makes of a bug in calamine
                raise
            raise _malformed("the reader gave up on it") from None
    header = next((row for row in rows if any(cell != "" for cell in row)), None)
    if header is None:
        raise _malformed("the first sheet is empty")
    names = ["" if cell == "" else str(_plain(cell)).strip() for cell in header]
    check_columns(names)
    return Table("xlsx", [TableColumn(name) for name in names], lambda _: _read(rows, len(names)), whole_rows=True)


def _malformed(reason: str) -> Malformed:
    return Malformed(f"The body is not readable .xlsx: {reason[:200]}. {_ADVICE}", code="malformed_xlsx")


def _check_size(file: IO[bytes]) -> None:
    with zipfile.ZipFile(file) as parts:
        if sum(part.file_size for part in parts.infolist()) > _MOST_BYTES:
            raise TooLarge(f"The .xlsx unpacks to over {_MOST_BYTES >> 20} MiB. {_ADVICE}", code="xlsx_too_large")
        for part in parts.infolist():
            if part.filename.endswith(".xml"):
                with parts.open(part) as content:
                    _check_cells(content)


def _check_cells(content: IO[bytes]) -> None:
    """Refuse a sheet whose farthest row and column span more cells than calamine may hold."""
    rows = columns = 0
    is_sheet = False
    rest = b""
    while step := content.read(_STEP_BYTES):
        piece = rest + step
        is_sheet |= b"sheetData" in piece
        for letters, digits in _CELL.findall(piece):
            rows = max(rows, int(digits))
            columns = max(columns, _column_number(letters))
        rest = piece[-_OVERLAP_BYTES:]
    if is_sheet and rows * columns > _MOST_CELLS:
        raise TooLarge(
            f"The sheet spans {rows:,} rows and {columns:,} columns, and may have {_MOST_CELLS:,} cells. "
            f"{_ADVICE}",
            code="xlsx_too_large",
        )


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - ord("A") + 1
    return number


def _read(rows: Iterator[Sequence[Any]], width: int) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        cells = [None if cell == "" else _plain(cell) for cell in row]
        if all(cell is None for cell in cells):
            continue  # a blank row counts
        if len(cells) > width and any(cell is not None for cell in cells[width:]):
            yield number, RowRefused("wrong_cell_count", f"{len(cells)} cells, but the header has {width}")
        elif sum(len(cell.encode(errors="replace")) for cell in cells if isinstance(cell, str)) > ROW_BYTES:
            yield number, TOO_LONG
        else:
            yield number, cells[:width] + [None] * (width - len(cells))


def _plain(cell: Any) -> Any:
    match cell:
        case date() | time():  # a datetime is a date
            return cell.isoformat()
        case timedelta():
            return msgspec.to_builtins(cell)
        case float() if cell.is_integer() and abs(cell) < 2**53:
            return int(cell)  # Excel has no integers
    return cell
