"""Reads NDJSON and JSON arrays: a value for each row.

An array is cut into its elements without parsing them. A streaming parser would do, but `ijson` crashes the
process on long numbers, and takes memory by the square of the nesting depth. Cut out, an element is parsed alone,
so that a bad one costs only itself.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite
from typing import Any

from pydantic_core import from_json

from core.tables.decoding import peek
from core.tables.rows import ROW_BYTES, TOO_LONG, Row, RowRefused, Table
from core.tables.text_lines import as_utf8, split_lines
from core.web.problems import Malformed, TooLarge

# Up to the next bracket, or, between elements, comma; strings are passed over.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_IN_ELEMENT = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[\]{}])", re.DOTALL)
_BETWEEN_ELEMENTS = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+([\[\]{},])", re.DOTALL)
_DEPTH_CHANGES = {b"[": 1, b"{": 1, b",": 0, b"]": -1, b"}": -1}
_SPACE = b" \t\r\n"
_MAY_OVERFLOW = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{309}")


def _split_elements(chunks: Iterable[bytes]) -> Iterator[bytes]:
    source = iter(chunks)
    buffer = _open(source)
    start = scanned = elements = 0
    depth = 1
    while depth:
        found = (_BETWEEN_ELEMENTS if depth == 1 else _IN_ELEMENT).match(buffer, scanned)
        if found is None:
            buffer, start, scanned = buffer[start:], 0, scanned - start
            buffer += _read_on(source, len(buffer))
            continue
        scanned = found.end()
        structure = found[1]
        depth += _DEPTH_CHANGES[structure]
        if depth == 0 or structure == b",":
            element = buffer[start : scanned - 1].strip(_SPACE)
            start, elements = scanned, elements + 1
            if depth or element or elements > 1:  # `[]` has no element, but `[1,]` lacks one
                yield element
        if depth == 0 and structure != b"]":
            raise Malformed("The body's array does not end with a bracket.", code="malformed_json")
    _expect_end(buffer[scanned:], source)


def _open(source: Iterator[bytes]) -> bytes:
    """Return what follows the opening bracket."""
    for chunk in source:
        if content := chunk.lstrip(_SPACE):
            if content.startswith(b"["):
                return content[1:]
            break
    raise Malformed(
        "The body is not a JSON array of objects, one for each text (pandas: orient='records'). "
        "Send that, or one object a line as application/x-ndjson.",
        code="malformed_json",
    )


def _read_on(source: Iterator[bytes], held_bytes: int) -> bytes:
    if held_bytes > ROW_BYTES:
        raise TooLarge(f"An element is longer than {ROW_BYTES} bytes.", code="row_too_large")
    try:
        return next(source)
    except StopIteration:
        raise Malformed("The body ends before its array does.", code="malformed_json") from None


def _expect_end(rest: bytes, source: Iterator[bytes]) -> None:
    if rest.strip(_SPACE) or any(chunk.strip(_SPACE) for chunk in source):
        raise Malformed("The body has more bytes after its array.", code="malformed_json")


Parse = Callable[[bytes], Any]


def read_value(value: bytes) -> Any:
    """Read one JSON value.

    Raises:
        ValueError: it is none.
    """
    found = from_json(value, allow_inf_nan=False)
    if _MAY_OVERFLOW.search(value):
        json.loads(value, parse_float=_require_finite)  # 1e999 would become infinity
    return found


def _require_finite(number: str) -> None:
    if not isfinite(float(number)):
        raise ValueError("number out of range")


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
        Malformed: not a JSON array, or one that is cut; elements before the fault have been yielded.
        TooLarge: an element is over the limit, so that the next one cannot be found.
    """
    start, chunks = peek(as_utf8(chunks), ROW_BYTES // 4)
    if _is_object_a_line(start):
        return open_ndjson(chunks, parse)

    def read(_: Sequence[int] = ()) -> Iterator[Row]:
        return ((number, _parse(element, parse)) for number, element in enumerate(_split_elements(chunks), 1))

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
        if not value:
            return RowRefused("malformed_json", "empty: is there a comma too many?")
        hint = "; is the body an array? Send it as application/json" if value == b"[" else ""
        return RowRefused("malformed_json", f"not JSON: {error}{hint}")
