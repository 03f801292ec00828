"""Content-Encoding: decompresses chunks in constant memory, also those that expand very far."""

import errno
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from backports import zstd

from core.web.problems import Malformed, TooLarge, Unavailable, UnsupportedType

_STEP_BYTES = 64 * 1024

# Real texts compress three to twenty times; a bomb a thousand times. Small bodies may be as dense as they like.
_MOST_EXPANSION = 100
_FREE_BYTES = 16 * 1024 * 1024

# 32 MiB; the window is what a decoder must hold in memory.
_ZSTD_WINDOW_LOG = 25
_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip's header

_MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_MAGIC_BYTES = 4
_SKIPPABLE_FRAME = b"\x2a\x4d\x18"  # of zstd, behind a first byte that varies
_PART_BYTES = 16 * 1024


class TrailingJunk(Malformed):
    """Other bytes follow the compressed data, which is complete."""

    def __init__(self) -> None:
        super().__init__("The body has more bytes after its compressed data.", code="malformed_encoding")


def require_encoding(header: str | None) -> str:
    """Return the Content-Encoding that a request names: `identity`, `gzip` (or `x-gzip`, the same) or `zstd`.

    Raises:
        UnsupportedType: it is another one, or there are several.
    """
    encoding = (header or "identity").strip().lower().removeprefix("x-")
    if encoding != "identity" and encoding not in _DECODERS:
        known = ", ".join(_DECODERS)
        raise UnsupportedType(f"Content-Encoding {encoding!r} is not read here; use one of: {known}.")
    return encoding


def recognise_encoding(body: "PlainBody") -> "PlainBody":
    """Decompress a body without Content-Encoding if its first bytes are those of gzip or zstd."""
    if body.encoding != "identity":
        return body
    start, chunks = peek(body, _MAGIC_BYTES)
    encoding = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "identity")
    return PlainBody(chunks, encoding)


def peek(chunks: Iterable[bytes], count: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the first `count` bytes or more (fewer if the body is shorter), and an iterator over the whole body.

    If reading these bytes fails, the iterator yields the bytes that were read and then raises the error.
    """
    source, held, failed = iter(chunks), list[bytes](), list[Exception]()
    try:
        while sum(map(len, held)) < count:
            held.append(next(source))
    except StopIteration:
        pass
    except Exception as error:  # noqa: BLE001 - raised again below
        failed.append(error)

    start = b"".join(held)

    def whole() -> Iterator[bytes]:
        yield start
        if failed:
            raise failed[0]
        yield from source

    return start, whole()


def check_expansion(plain_bytes: int, sent_bytes: int, most: int) -> None:
    """Let pass what expands at most `most` times, or is short.

    Raises:
        TooLarge: it is a bomb.
    """
    if plain_bytes > max(_FREE_BYTES, sent_bytes * most):
        raise TooLarge(f"The body expands over {most} times.", code="body_is_a_bomb")


class PlainBody:
    """The plain chunks of a body, whose Content-Encoding `require_encoding` has let pass.

    `sent_bytes`: how many bytes were sent for the chunks so far, compressed or not.

    Iterating raises:
        Malformed: damaged or cut short; what came before has been yielded.
        TooLarge: it expands as only a bomb does.
    """

    def __init__(self, chunks: Iterable[bytes], encoding: str = "identity") -> None:
        self.encoding = encoding
        self.sent_bytes = 0
        sent = self._count(chunks)
        self._chunks = _join_small(sent) if encoding == "identity" else self._expand(sent, encoding)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def _count(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.sent_bytes += len(chunk)
            yield chunk

    def _expand(self, chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
        expanded = 0
        try:
            for plain in _decode_members(chunks, encoding):
                expanded += len(plain)
                check_expansion(expanded, self.sent_bytes, _MOST_EXPANSION)
                yield plain
        except (EOFError, zlib.error, zstd.ZstdError) as error:
            reason = str(error).splitlines()[0]
            if "too much memory" in reason:
                reason += "; compress it with a window of 32 MiB or less (zstd --long=25)"
            raise Malformed(f"The body is not readable {encoding}: {reason}.", code="malformed_encoding") from None


def _decode_members(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Decode members that follow on each other; zeros behind the last one are padding."""
    make, feed = _DECODERS[encoding]
    decoder: Any = make()
    held = b""  # the first bytes of what may be another member
    for part in _cut(chunks):
        data, held = held + part, b""
        while data := data if decoder else data.lstrip(b"\0"):
            if decoder is None:
                if len(data) < _MAGIC_BYTES:
                    held = data
                    break
                if not data.startswith(tuple(_MAGIC)) and data[1:4] != _SKIPPABLE_FRAME:
                    raise TrailingJunk
                decoder = make()
            yield from feed(decoder, data)
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data, None
    if held:
        raise TrailingJunk
    if decoder is not None:
        raise EOFError("it ends too early")


def _cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Cut chunks into short parts, since each member copies the rest of its part."""
    for chunk in chunks:
        for start in range(0, len(chunk), _PART_BYTES):
            yield chunk[start : start + _PART_BYTES]


def _make_zstd() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG})


def _feed_gzip(decoder: Any, data: bytes) -> Iterator[bytes]:
    while data or not decoder.eof:
        plain = decoder.decompress(data, _STEP_BYTES)
        data = decoder.unconsumed_tail
        if not plain and not data:
            return
        if plain:
            yield plain


def _feed_zstd(decoder: Any, data: bytes) -> Iterator[bytes]:
    while not decoder.eof:
        if plain := decoder.decompress(data, _STEP_BYTES):
            yield plain
        elif decoder.needs_input:
            return
        data = b""


_DECODERS: dict[str, tuple[Callable[[], Any], Callable[[Any, bytes], Iterator[bytes]]]] = {
    "gzip": (lambda: zlib.decompressobj(_GZIP), _feed_gzip),
    "zstd": (_make_zstd, _feed_zstd),
}


def _join_small(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Join small chunks into longer ones.

    A reader copies and searches an unfinished row again with each chunk: in chunks of one byte, that would take
    the square of the row's length.
    """
    gathered: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            gathered.append(chunk)
            size += len(chunk)
            if size >= _STEP_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
    except Exception:
        if gathered:
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)


@contextmanager
def spooled(chunks: Iterable[bytes]) -> Iterator[IO[bytes]]:
    """Write a body into a file that is gone when the block ends: the index of some formats is at their end.

    Raises:
        Unavailable: the disk that holds temporary files is full.
    """
    # Unbuffered: closing a buffered one would try again to write what did not fit.
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise Unavailable("There is no room for the file just now. Send it later.", code="disk_full") from None
        yield file
