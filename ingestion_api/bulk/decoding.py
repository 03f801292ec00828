"""Content-Encoding: from compressed chunks to plain ones, in constant memory, whatever they expand to."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

from backports import zstd

from core.web.problems import Malformed, TooLarge, UnsupportedType

_STEP_BYTES = 64 * 1024

# Real texts compress three to twenty times; a bomb a thousand times. Small bodies may be as dense as they like.
_MOST_EXPANSION = 100
_FREE_BYTES = 16 * 1024 * 1024

# 32 MiB; the window is what a decoder must hold in memory.
_ZSTD_WINDOW_LOG = 25


def require_encoding(header: str | None) -> str:
    """Return the Content-Encoding that a request names: `identity`, `gzip` (or `x-gzip`, the same) or `zstd`.

    Raises:
        UnsupportedType: it is another one, or there are several.
    """
    encoding = (header or "identity").strip().lower().removeprefix("x-")
    if encoding != "identity" and encoding not in _OPENERS:
        known = ", ".join(_OPENERS)
        raise UnsupportedType(f"Content-Encoding {encoding!r} is not read here; use one of: {known}.")
    return encoding


def decode(chunks: Iterable[bytes], encoding: str) -> "PlainBody":
    """Undo a Content-Encoding that `require_encoding` has let pass.

    Iterating raises:
        Malformed: damaged or cut short; what came before has been yielded.
        TooLarge: it expands as only a bomb does.
    """
    return PlainBody(chunks, encoding)


def check_expansion(plain_bytes: int, sent_bytes: int, most: int) -> None:
    """Let pass what expands at most `most` times, or is short.

    Raises:
        TooLarge: it is a bomb.
    """
    if plain_bytes > max(_FREE_BYTES, sent_bytes * most):
        raise TooLarge(f"The body expands over {most} times.", code="body_is_a_bomb")


class PlainBody:
    """The plain chunks of a body. `sent_bytes`: how many bytes were sent for them so far, compressed or not."""

    def __init__(self, chunks: Iterable[bytes], encoding: str) -> None:
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
            with _OPENERS[encoding](io.BufferedReader(_File(chunks), _STEP_BYTES)) as file:
                while plain := file.read(_STEP_BYTES):
                    expanded += len(plain)
                    check_expansion(expanded, self.sent_bytes, _MOST_EXPANSION)
                    yield plain
        except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
            reason = str(error).splitlines()[0]
            raise Malformed(f"The body is not readable {encoding}: {reason}.", code="malformed_encoding") from None


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


class _File(io.RawIOBase):
    """The compressed body as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        part, self._rest = self._rest[: len(target)], self._rest[len(target) :]
        target[: len(part)] = part
        return len(part)


def _open_gzip(body: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=body))


def _open_zstd(body: BinaryIO) -> BinaryIO:
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    return cast(BinaryIO, zstd.ZstdFile(body, options=options))


_OPENERS: dict[str, Callable[[BinaryIO], BinaryIO]] = {"gzip": _open_gzip, "zstd": _open_zstd}
