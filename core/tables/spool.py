"""Formats whose index is at the end of the file pass through a temporary file."""

import errno
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from core.web.problems import Unavailable


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
