"""Bodies of characters: their encoding, and their lines."""

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import AnyStr

import charset_normalizer

from core.tables.decoding import TrailingJunk, peek
from core.tables.rows import ROW_BYTES
from core.web.problems import Malformed, UnsupportedType

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# Python's name of each encoding, and its name on the web.
CHARSETS = {
    "utf-8": "utf-8",
    "utf-16": "utf-16",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "utf-32": "utf-32",
    "ascii": "us-ascii",
    **{f"cp{number}": f"windows-{number}" for number in range(1250, 1259)},
    "cp874": "windows-874",
    "iso8859-1": "iso-8859-1",
    **{f"iso8859-{number}": f"iso-8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)},
    "cp437": "cp437",
    "cp850": "cp850",
    "koi8-r": "koi8-r",
    "koi8-u": "koi8-u",
    "mac-roman": "macintosh",
    "shift_jis": "shift_jis",
    "cp932": "windows-31j",
    "euc_jp": "euc-jp",
    "gbk": "gbk",
    "gb18030": "gb18030",
    "big5": "big5",
    "euc_kr": "euc-kr",
    "cp949": "windows-949",
}
_WITHOUT_BYTES = ("utf-16", "utf-32")  # in which a wrong byte has no place of its own
# Candidates for a guess, the commonest first.
_LIKELY = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "koi8_r", "shift_jis", "gb18030", "big5", "euc_kr"]


_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_GUESSED_BYTES = 16 * 1024


def require_charset(name: str) -> str:
    """Return Python's name of an encoding.

    Raises:
        UnsupportedType: it is unknown, or not one of `CHARSETS`.
    """
    try:
        found = codecs.lookup(name.strip().strip('"')).name
    except (LookupError, ValueError):
        found = ""
    if found not in CHARSETS:
        raise UnsupportedType(
            f"The charset {name[:50]!r} is not read here; use one of: {', '.join(CHARSETS.values())}."
        )
    return "utf-8" if found == "ascii" else found


def guess_charset(sample: bytes) -> str | None:
    """Return what the web calls the encoding that these bytes are most likely in; None if there is no telling."""
    first = _NOT_ASCII.search(sample)
    start = max(0, first.start() - _GUESSED_BYTES // 2) if first else 0
    sample = sample[start : start + _GUESSED_BYTES]
    best = charset_normalizer.from_bytes(sample, cp_isolation=_LIKELY).best()
    if best is None:
        return None
    if sample.decode("cp1252", "replace") == sample.decode(best.encoding, "replace"):
        return "windows-1252"  # of several that read the same, the commonest
    return CHARSETS.get(codecs.lookup(best.encoding).name)


class Characters:
    """A body's characters, chunk by chunk. Bytes that are wrong in the encoding become lone surrogates.

    `charset`: what the web calls the encoding. `wrong_bytes`: the first chunk that had some, else empty.

    Raises:
        Malformed: UTF-16 or UTF-32 that is cut or wrong, or sent as if it were UTF-8.
    """

    def __init__(self, chunks: Iterable[bytes], charset: str | None = None) -> None:
        start, chunks = peek(chunks, 4)
        marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
        self._codec = marked or charset or "utf-8"
        self.charset = CHARSETS[self._codec.removesuffix("-sig")]
        self.wrong_bytes = b""
        self._is_sure = marked is not None or charset is not None
        self._chunks = self._decode(chunks)

    def __iter__(self) -> Iterator[str]:
        return self._chunks

    def _decode(self, chunks: Iterable[bytes]) -> Iterator[str]:
        errors = "strict" if self._codec.startswith(_WITHOUT_BYTES) else "surrogateescape"
        decoder = codecs.getincrementaldecoder(self._codec)(errors)
        try:
            for chunk in chunks:
                yield self._checked(chunk, decoder.decode(chunk))
            yield self._checked(b"", decoder.decode(b"", final=True))
        except UnicodeError as error:
            reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
            raise Malformed(f"The body is not {self.charset}: {reason}.", code="malformed_charset") from None

    def _checked(self, chunk: bytes, characters: str) -> str:
        if not self._is_sure and characters[:100].count("\0") * 4 > len(characters[:100]):
            raise Malformed("The body looks like UTF-16: send it with charset=utf-16le.", code="malformed_charset")
        self._is_sure = True
        if not self.wrong_bytes and not characters.isascii():
            try:
                characters.encode()
            except UnicodeEncodeError:
                self.wrong_bytes = chunk or characters.encode(errors="surrogateescape")
        return characters


def as_utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a JSON body in UTF-8, without its byte order mark; the mark may say UTF-16 or UTF-32."""
    start, chunks = peek(chunks, 4)
    if start.startswith(codecs.BOM_UTF8):
        next(chunks)  # the start
        return chain([start.removeprefix(codecs.BOM_UTF8)], chunks)
    if start.startswith(tuple(_MARKS)):
        return (characters.encode() for characters in Characters(chunks))
    return iter(chunks)


def split_lines(chunks: Iterable[AnyStr], newline: AnyStr) -> Iterator[AnyStr | None]:
    """Yield lines without their ends; None as soon as one is over the limit, which is dropped.

    A last line without an end is yielded, unless the body breaks off within it.
    """
    nothing: AnyStr = newline[:0]
    rest: AnyStr = nothing
    dropping = False
    try:
        for chunk in chunks:
            lines: list[AnyStr] = chunk.split(newline)
            last = lines.pop()
            for line in lines:
                if not dropping:
                    whole = rest + line
                    yield None if len(whole) > ROW_BYTES else whole
                rest, dropping = nothing, False
            rest = nothing if dropping else rest + last
            if len(rest) > ROW_BYTES:
                yield None
                rest, dropping = nothing, True
    except TrailingJunk:
        if rest:
            yield rest
        raise
    if rest:
        yield rest
