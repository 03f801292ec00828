"""The folder of the replica's files, and the lock files that give each process its own folder."""

import fcntl
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import duckdb
import structlog

from serving_api.replica.file import OtherLayout, ReplicaFile, delete, put_aside
from serving_api.settings import ReplicaSettings

_TURN_SECONDS = 0.2


def claim(folder: Path, processes: int) -> tuple[Path, TextIO]:
    """Lock the first folder that no other process has locked; return it and its lock file.

    The first one is `folder` itself, the others are numbered folders in it.

    Raises:
        SystemExit: all are locked.
        OSError: they cannot be written.
    """
    for number in range(1, processes + 1):
        slot = folder if number == 1 else folder / str(number)
        slot.mkdir(parents=True, exist_ok=True)
        lock = (slot / "replica.lock").open("w")
        if _try_lock(lock):
            return slot, lock
        lock.close()
    raise SystemExit(
        f"Another process uses the replica in {folder}. Give each serving API its own DATA_DIR, or let one run "
        "several processes (SERVING_PROCESSES)."
    )


@contextmanager
def building_turn(folder: Path, stopping: threading.Event) -> Iterator[bool]:
    """Wait until no other process builds a replica; yield false if `stopping` is set first."""
    with (folder / "build.lock").open("w") as lock:
        while not (mine := _try_lock(lock)):
            if stopping.wait(_TURN_SECONDS):
                break
        yield mine


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


log = structlog.get_logger()

# If a file cannot be opened, any other error means damage.
_NO_ACCESS_WORDS = ("lock on file", "permission denied", "no space left", "read-only file system")

# Processes that need a build begin within seconds of each other.
_SEED_SECONDS = 600


class ReplicaFolder:
    """The folder of one replica, in which one process works; `shared` is the one for all processes."""

    def __init__(self, path: Path, shared: Path, settings: ReplicaSettings) -> None:
        self.path = path
        self._settings = settings
        self._building = path / "replica.building"
        self._seed = shared / "seed.duckdb"
        self._number = 0

    def open(self) -> ReplicaFile:
        """Open the file in use and remove leftovers; begin an empty file where it is missing or unusable.

        Raises:
            duckdb.Error: it may not be opened or written.
        """
        found = self._find()
        self._number = max(found, default=0)
        for number, file in found.items():
            if number != self._number:
                delete(file)
        delete(self._building)
        try:
            return ReplicaFile(self._current, self._settings)
        except OtherLayout as error:
            log.info("replica.layout_changed", reason=str(error))
            delete(self._current)
        except duckdb.Error as error:
            if any(word in str(error).lower() for word in _NO_ACCESS_WORDS):
                raise
            log.warning("replica.damaged", path=str(self._current), error=str(error))
            put_aside(self._current)
        return ReplicaFile(self._current, self._settings)

    def begin(self) -> ReplicaFile:
        """Begin the next file. DuckDB's settings may be changed until it is in place and queried."""
        delete(self._building)
        return ReplicaFile(self._building, self._settings, locked=False)

    def begin_from_seed(self) -> ReplicaFile | None:
        """Begin the next file as a copy of a file that another process has just built; None without one."""
        delete(self._building)
        try:
            shutil.copyfile(self._seed, self._building)
            return ReplicaFile(self._building, self._settings)
        except FileNotFoundError:
            return None
        except (duckdb.Error, OtherLayout) as error:
            log.warning("replica.seed_refused", error=str(error))
            self._seed.unlink(missing_ok=True)
            return None

    def put_in_place(self, building: ReplicaFile) -> ReplicaFile:
        """Complete the next file, and open it under its own name."""
        building.finish()
        self._number += 1
        self._building.replace(self._current)
        return ReplicaFile(self._current, self._settings)

    def discard(self, building: ReplicaFile) -> None:
        """Remove the next file if it was not put in place."""
        building.close()
        delete(self._building)

    def make_seed(self, building: ReplicaFile) -> None:
        """Complete the next file, and leave a copy for the other processes."""
        building.finish()
        unfinished = self._seed.with_suffix(".building")
        try:
            shutil.copyfile(self._building, unfinished)
            unfinished.replace(self._seed)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            log.warning("replica.not_shared", error=str(error))

    def drop_old_seed(self) -> None:
        """Remove the copy for other processes after they had time to take it."""
        try:
            if time.time() - self._seed.stat().st_mtime > _SEED_SECONDS:
                self._seed.unlink(missing_ok=True)
        except FileNotFoundError:
            pass

    def drop_damaged(self) -> None:
        """Remove the damaged file that was kept: it may contain forgotten texts."""
        delete(self.path / "replica.damaged")

    @property
    def _current(self) -> Path:
        return self.path / (f"replica-{self._number}.duckdb" if self._number else "replica.duckdb")

    def _find(self) -> dict[int, Path]:
        names = {file: re.fullmatch(r"replica(?:-([0-9]+))?\.duckdb", file.name) for file in self.path.iterdir()}
        return {int(match[1] or 0): file for file, match in names.items() if match}
