"""Cuts a JSON array into its elements without parsing them.

A streaming parser would do, but `ijson` crashes the process on long numbers, and takes memory by the square of the
nesting depth. Cut out, an element is parsed alone, so that a bad one costs only itself.
"""

import codecs
import re
from collections.abc import Iterable, Iterator

from core.tables.rows import ROW_BYTES
from core.web.problems import Malformed, TooLarge

# Up to the next bracket, or, between elements, comma; strings are passed over.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_IN_ELEMENT = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[\]{}])", re.DOTALL)
_BETWEEN_ELEMENTS = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+([\[\]{},])", re.DOTALL)
_DEPTH_CHANGES = {b"[": 1, b"{": 1, b",": 0, b"]": -1, b"}": -1}
_SPACE = b" \t\r\n"


def split_elements(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of each element.

    Raises:
        Malformed: the body is no array, ends before the array does, or has more bytes after it.
        TooLarge: an element is longer than a row may be, so that its end was not looked for.
    """
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
    buffer = b""
    for chunk in source:
        buffer += chunk
        content = buffer.removeprefix(codecs.BOM_UTF8).lstrip(_SPACE)
        if content.startswith(b"["):
            return content[1:]
        if content and not codecs.BOM_UTF8.startswith(content):  # the mark may come in pieces
            break
    raise Malformed(
        "The body is not a JSON array. Send one object a line as application/x-ndjson.", code="malformed_json"
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
