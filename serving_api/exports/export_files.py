"""The folder of finished export files: each is written once, served many times, and the oldest is removed first.

The file names contain all metadata, so the processes of one machine share the folder without a database:
`KEY.ROWS.FEED.VERSION.TOKEN`. KEY is the hash of format and query, and ROWS also of the version. TOKEN is random:
two files of the same rows may have them in different orders, so a strong ETag needs the token.
"""

import errno
import io
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from core.web.problems import Unavailable
from serving_api.file_response import LOCAL_PIECE_BYTES

_MOST_FILES = 256
# The limits are checked after this number of new files, and whenever a file has grown by this number of bytes.
_CHECK_FILES = 32
CHECK_BYTES = 16 * 2**20
_MIN_FREE_BYTES = 2**30  # left on the disk, which the replica needs as well
# The process of an unfinished file that has not grown for this time has died.
_ABANDONED_SECONDS = 3600
# How long after its last request a client's ranges come from the version that it saw first.
_FOLLOWED_SECONDS = 60

_UNFINISHED = "unfinished-"
_FOLLOWED = "followed-"


class ExportFile(NamedTuple):
    """A finished file."""

    path: Path
    rows: str  # the same for the same rows, format and order
    feed: str
    version: int
    token: str

    @property
    def etag(self) -> str:
        """The strong validator, in quotes."""
        return f'"{self.rows}-{self.token}"'


class ExportFolder:
    """The folder, within limits on bytes and files; a private one."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._owner = ""
        self._begun_files = 0  # since the folder was looked through last

    def open(self, owner: str) -> None:
        """Create the folder, and remove unfinished files of an earlier process of the same `owner`."""
        self._owner = owner
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._folder.glob(f"{_UNFINISHED}{owner}-*"):
            left.unlink(missing_ok=True)

    def find_tagged(self, key: str, etags: list[str]) -> ExportFile | None:
        """Return the file of this query, in any version, that has one of these ETags."""
        return next((file for file in self._files(f"{key}.") if file.etag in etags), None)

    def follow(self, key: str, client: str, file: ExportFile) -> None:
        """Record that this client reads this file: `followed` returns it for a while."""
        link = self._link(key, client)
        made = link.with_name(f"{_FOLLOWED}{secrets.token_hex(8)}")
        made.symlink_to(file.path.name)
        made.replace(link)

    def followed(self, key: str, client: str) -> ExportFile | None:
        """Return the file that the client has begun to read: it must not mix ranges of two versions."""
        link = self._link(key, client)
        with suppress(OSError):
            if time.time() - link.lstat().st_mtime < _FOLLOWED_SECONDS:
                return _parse(link.readlink().name, self._folder)
        return None

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Yield a new unfinished file. It is removed at the end unless it was kept.

        Raises:
            Unavailable: the disk is full.
        """
        path = self._folder / f"{_UNFINISHED}{self._owner}-{secrets.token_hex(8)}"
        try:
            self._begun_files += 1
            if self._begun_files >= _CHECK_FILES:
                self.make_room()
            with open(path, "xb+", opener=partial(os.open, mode=0o600)) as file:
                yield file
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _no_space() from error
            raise

    def keep(self, file: BinaryIO, key: str, rows: str, feed: str, version: int) -> ExportFile:
        """Put a finished file in place."""
        token = secrets.token_hex(8)
        path = self._folder / f"{key}.{rows}.{feed}.{version}.{token}"
        Path(file.name).rename(path)
        return ExportFile(path, rows, feed, version, token)

    def make_room(self) -> None:
        """Remove the files used least recently until the folder is within its limits.

        Raises:
            Unavailable: unfinished files alone are over the limit, or the disk is nearly full.
        """
        self._begun_files = 0
        sizes = self._sizes()
        total = sum(size for _, size in sizes.values())
        for path in sorted((path for path in sizes if "." in path.name), key=lambda path: sizes[path][0]):
            if total <= self._max_bytes and len(sizes) <= _MOST_FILES and self._has_space():
                return
            path.unlink(missing_ok=True)
            total -= sizes.pop(path)[1]
        if total > self._max_bytes:
            detail = f"The export takes more than SERVING_EXPORT_BYTES ({self._max_bytes:,}) on disk: add filters."
            raise Unavailable(detail, code="export_too_large", retry_after_seconds=60)
        if not self._has_space():
            raise _no_space()

    def purge(self, feed: str, forgotten: int) -> None:
        """Remove the files that may contain a forgotten text; `forgotten` is the version of the last one.

        Files of another database are removed as well: its versions cannot be compared.
        """
        for file in self._files(""):
            if file.feed != feed or file.version < forgotten:
                file.path.unlink(missing_ok=True)
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
        for link in self._folder.glob(f"{_FOLLOWED}*"):
            if not link.exists():  # its file is gone
                link.unlink(missing_ok=True)

    def _files(self, prefix: str) -> list[ExportFile]:
        # Not iterdir, which makes a Path for each file: a third of the time of a small export.
        names = [name for name in os.listdir(self._folder) if name.startswith(prefix)]  # noqa: PTH208
        return [file for file in (_parse(name, self._folder) for name in names) if file is not None]

    def _sizes(self) -> dict[Path, tuple[float, int]]:
        """Return when each file was used last, and its size."""
        found = {}
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                info = entry.stat(follow_symlinks=False)
                if not entry.is_symlink():
                    found[Path(entry.path)] = (info.st_mtime, info.st_size)
        return found

    def _has_space(self) -> bool:
        return shutil.disk_usage(self._folder).free >= _MIN_FREE_BYTES

    def _link(self, key: str, client: str) -> Path:
        return self._folder / f"{_FOLLOWED}{key}-{client.encode().hex()[:100]}"


def read_small(file: BinaryIO) -> bytes | None:
    """Write the buffered bytes of a new file to it, and return all of them if the file is small."""
    file.flush()
    if file.tell() > LOCAL_PIECE_BYTES:
        return None
    file.seek(0)
    return file.read()


def open_file(file: ExportFile) -> tuple[BinaryIO, int]:
    """Open a file for reading, record its use, and return it with its size; a small file is in memory.

    Raises:
        FileNotFoundError: it was removed.
    """
    source = file.path.open("rb")
    size = os.fstat(source.fileno()).st_size
    with suppress(OSError):
        os.utime(file.path)
    if size > LOCAL_PIECE_BYTES:
        return source, size
    with source:
        return io.BytesIO(source.read()), size


def _parse(name: str, folder: Path) -> ExportFile | None:
    parts = name.split(".")
    if len(parts) != 5 or not parts[3].isdigit():
        return None
    _, rows, feed, version, token = parts
    return ExportFile(folder / name, rows, feed, int(version), token)


def _no_space() -> Unavailable:
    detail = "There is no disk space for the export."
    return Unavailable(detail, code="storage_full", retry_after_seconds=60)
