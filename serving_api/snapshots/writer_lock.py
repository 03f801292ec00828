"""One writer of snapshots at a time, among all threads and processes that share a folder."""

import fcntl
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.web.problems import Unavailable
from serving_api.snapshots.storage import remove

_LOCK = ".lock"
_WRITING = ".writing-"


class WriterLock:
    """Lets one writer in, with a folder to write into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = threading.Lock()

    @contextmanager
    def hold(self) -> Iterator[Path]:
        """Give a new empty folder, removed at the end unless it was moved; removes those of dead writers.

        Raises:
            Unavailable: another snapshot is being written.
            OSError: the folder may not be written.
        """
        if not self._thread.acquire(blocking=False):
            raise _taken()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / _LOCK).open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a process that dies lets go of it
                except BlockingIOError as error:
                    raise _taken() from error
                yield from self._new_folder()
        finally:
            self._thread.release()

    def _new_folder(self) -> Iterator[Path]:
        for left in self._folder.glob(f"{_WRITING}*"):
            remove(left)
        folder = self._folder / f"{_WRITING}{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            yield folder
        finally:
            remove(folder)


def _taken() -> Unavailable:
    return Unavailable("Another snapshot is being written.", code="too_busy", retry_after_seconds=5)
