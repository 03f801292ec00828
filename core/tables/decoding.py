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


def decode(chunks: Iterable[bytes], encoding: str) -> "PlainBody":
    """Undo a Content-Encoding that `require_encoding` has let pass.

    Iterating raises:
        Malformed: damaged or cut short; what came before has been yielded.
        TooLarge: it expands as only a bomb does.
    """
    return PlainBody(chunks, encoding)


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
    """The plain chunks of a body. `sent_bytes`: how many bytes were sent for them so far, compressed or not."""

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
            for plain in _decode_members(chunks, _DECODERS[encoding]):
                expanded += len(plain)
                check_expansion(expanded, self.sent_bytes, _MOST_EXPANSION)
                yield plain
        except (EOFError, zlib.error, zstd.ZstdError) as error:
            reason = str(error).splitlines()[0]
            raise Malformed(f"The body is not readable {encoding}: {reason}.", code="malformed_encoding") from None


def _decode_members(chunks: Iterator[bytes], make: Callable[[], Any]) -> Iterator[bytes]:
    """Decode members that follow on each other; zeros behind the last one are padding."""
    decoder: Any = make()
    held = b""  # the first bytes of what may be another member
    for part in _cut(chunks):
        data, held = held + part, b""
        while data := data if decoder else data.lstrip(b"\0"):
            if decoder is None:
                if len(data) < _MAGIC_BYTES:
                    held = data
                    break
                if not _starts_member(data):
                    raise TrailingJunk(
                        "The body has more bytes after its compressed data.", code="malformed_encoding"
                    )
                decoder = make()
            yield from decoder.feed(data)
            data = b""
            if decoder.ended:
                data, decoder = decoder.unused, None
    if held:
        raise TrailingJunk("The body has more bytes after its compressed data.", code="malformed_encoding")
    if decoder is not None:
        raise EOFError("it ends too early")


def _cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Cut chunks into short parts, since each member copies the rest of its part."""
    for chunk in chunks:
        for start in range(0, len(chunk), _PART_BYTES):
            yield chunk[start : start + _PART_BYTES]


def _starts_member(data: bytes) -> bool:
    return data.startswith(tuple(_MAGIC)) or data[1:4] == _SKIPPABLE_FRAME


class _Gzip:
    """One member of a gzip body."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(_GZIP)

    @property
    def ended(self) -> bool:
        return self._decoder.eof

    @property
    def unused(self) -> bytes:
        return self._decoder.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or not self._decoder.eof:
            plain = self._decoder.decompress(data, _STEP_BYTES)
            data = self._decoder.unconsumed_tail
            if not plain and not data:
                return
            if plain:
                yield plain


class _Zstd:
    """One frame of a zstd body."""

    def __init__(self) -> None:
        options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
        self._decoder = zstd.ZstdDecompressor(options=options)

    @property
    def ended(self) -> bool:
        return self._decoder.eof

    @property
    def unused(self) -> bytes:
        return self._decoder.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self._decoder.eof:
            if plain := self._decoder.decompress(data, _STEP_BYTES):
                yield plain
            elif self._decoder.needs_input:
                return
            data = b""


_DECODERS: dict[str, Callable[[], Any]] = {"gzip": _Gzip, "zstd": _Zstd}


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
def spooled(chunks: Iterable[bytes]) -> Iterator[tuple[IO[bytes], int]]:
    """Write a body into a file that is gone when the block ends; gives the file and its length in bytes.

    Raises:
        Unavailable: the disk that holds temporary files is full.
    """
    # Unbuffered: closing a buffered one would try again to write what did not fit.
    with tempfile.TemporaryFile(buffering=0) as file:
        yield file, _write(file, chunks)


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
