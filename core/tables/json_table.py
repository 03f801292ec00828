"""Reads NDJSON and JSON arrays: a value for each row."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json

from core.tables.decoding import peek
from core.tables.json_elements import split_elements
from core.tables.rows import ROW_BYTES, TOO_LONG, Row, RowRefused, Table
from core.tables.text_lines import as_utf8, split_lines

Parse = Callable[[bytes], Any]

_SPACE = b" \t\r\n"


def read_value(value: bytes) -> Any:
    """Read one JSON value.

    Raises:
        ValueError: it is none.
    """
    return from_json(value, allow_inf_nan=False)


def open_ndjson(chunks: Iterable[bytes], parse: Parse = read_value) -> Table:
    """Read one JSON value a line; blank lines are counted but not yielded."""
    lines = split_lines(as_utf8(chunks), b"\n")

    def read(_: Sequence[int] = ()) -> Iterator[Row]:
        for number, line in enumerate(lines, 1):
            if line is None or line.strip():
                yield number, _parse(line, parse)

    return Table("ndjson", None, read, charset="utf-8")


def open_json(chunks: Iterable[bytes], parse: Parse = read_value) -> Table:
    """Read the elements of one JSON array; or, as some programs call that JSON, one JSON object a line.

    Reading the rows raises:
        Malformed: not a JSON array; elements before the fault have been yielded.
        TooLarge: an element is over the limit, so that the next one cannot be found.
    """
    start, chunks = peek(as_utf8(chunks), ROW_BYTES // 4)
    if _is_object_a_line(start):
        return open_ndjson(chunks, parse)

    def read(_: Sequence[int] = ()) -> Iterator[Row]:
        return ((number, _parse(element, parse)) for number, element in enumerate(split_elements(chunks), 1))

    return Table("json", None, read, charset="utf-8")


def _is_object_a_line(start: bytes) -> bool:
    first, _, second = start.lstrip(_SPACE).partition(b"\n")
    if not (first.startswith(b"{") and second.lstrip(_SPACE).startswith(b"{")):
        return False
    try:
        return isinstance(from_json(first), dict)
    except ValueError:
        return False


def _parse(value: bytes | None, parse: Parse) -> Any | RowRefused:
    if value is None or len(value) > ROW_BYTES:
        return TOO_LONG
    try:
        return parse(value)
    except ValueError as error:
        return RowRefused("malformed_json", f"not JSON: {error}")
