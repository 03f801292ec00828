"""Content-Encoding: from compressed chunks to plain ones, in constant memory, whatever they expand to."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

from backports import zstd

from core.problems import Malformed, TooLarge, UnsupportedType

_STEP_BYTES = 64 * 1024

# Real texts compress three to twenty times; a bomb a thousand times. Small bodies may be as dense as they like.
_MOST_EXPANSION = 100
_FREE_BYTES = 64 * 1024 * 1024

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


def decode(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Undo a Content-Encoding that `require_encoding` has let pass.

    Raises:
        Malformed: damaged or cut short; what came before has been yielded.
        TooLarge: it expands as only a bomb does.
    """
    if encoding == "identity":
        return iter(chunks)
    return _expand(_Body(iter(chunks)), encoding)


def _expand(body: "_Body", encoding: str) -> Iterator[bytes]:
    expanded = 0
    try:
        with _OPENERS[encoding](io.BufferedReader(body, _STEP_BYTES)) as file:
            while plain := file.read(_STEP_BYTES):
                expanded += len(plain)
                if expanded > max(_FREE_BYTES, body.taken_bytes * _MOST_EXPANSION):
                    raise TooLarge(f"The body expands over {_MOST_EXPANSION} times.", code="body_is_a_bomb")
                yield plain
    except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
        reason = str(error).splitlines()[0]
        raise Malformed(f"The body is not readable {encoding}: {reason}.", code="malformed_encoding") from None


class _Body(io.RawIOBase):
    """The compressed body as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.taken_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
            self.taken_bytes += len(chunk)
        part, self._rest = self._rest[: len(target)], self._rest[len(target) :]
        target[: len(part)] = part
        return len(part)


def _open_gzip(body: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=body))


def _open_zstd(body: BinaryIO) -> BinaryIO:
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    return cast(BinaryIO, zstd.ZstdFile(body, options=options))


_OPENERS: dict[str, Callable[[BinaryIO], BinaryIO]] = {"gzip": _open_gzip, "zstd": _open_zstd}
