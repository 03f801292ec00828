"""Folders for the processes of a machine, and whose turn it is to build. The system frees what a dead one held."""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_TURN_SECONDS = 0.2


def claim(folder: Path, processes: int) -> tuple[Path, TextIO]:
    """Return the first folder that no other process holds, and what holds it until it is closed.

    The first one is `folder` itself, the others are numbered folders in it.

    Raises:
        SystemExit: all are held.
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
    """Wait until no other process builds; false when `stopping` came first."""
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
