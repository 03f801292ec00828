"""Content-Encoding: decompresses chunks in constant memory, also those that expand very far."""

import errno
import gzip
import io
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

_MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_MAGIC_BYTES = 4


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
    if encoding != "identity" and encoding not in _OPEN:
        known = ", ".join(_OPEN)
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
        sent = _Chunks(chunks)
        try:
            file = _OPEN[encoding](io.BufferedReader(sent))
            while plain := file.read1(_STEP_BYTES):
                expanded += len(plain)
                check_expansion(expanded, self.sent_bytes, _MOST_EXPANSION)
                yield plain
            if sent.failed or not self.sent_bytes:
                raise EOFError("it is empty")
        except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
            if sent.failed:
                raise sent.failed from None
            reason = str(error).splitlines()[0]
            if expanded and any(words in reason for words in _JUNK):
                raise TrailingJunk from None
            if "too much memory" in reason:
                reason += "; compress it with a window of 32 MiB or less (zstd --long=25)"
            raise Malformed(f"The body is not readable {encoding}: {reason}.", code="malformed_encoding") from None


class _Chunks(io.RawIOBase):
    """Chunks as a file, which ends where they fail: so what came before is decoded."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.failed: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                chunk = next(self._chunks, None)
            except Exception as error:  # noqa: BLE001 - raised again behind what can be decoded
                self.failed, chunk = error, None
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _open_zstd(file: IO[bytes]) -> zstd.ZstdFile:
    return zstd.ZstdFile(file, options={int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG})


# Both read members that follow on each other. Zeros behind the last member of gzip are padding.
_OPEN: dict[str, Callable[[Any], Any]] = {"gzip": lambda file: gzip.GzipFile(fileobj=file), "zstd": _open_zstd}
_JUNK = ("Not a gzipped file", "Unknown frame descriptor")  # in place of another member


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
