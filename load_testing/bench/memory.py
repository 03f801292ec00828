"""How much memory a program takes while something happens."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

_INTERVAL_SECONDS = 0.02


@dataclass(slots=True)
class Peak:
    """The most resident memory of a process and its descendants together; what they share counts for each."""

    bytes: int = 0


@contextmanager
def peak_memory(pid: int) -> Iterator[Peak]:
    """Look at it again and again until the block ends."""
    peak, done = Peak(), threading.Event()

    def look() -> None:
        while not done.wait(_INTERVAL_SECONDS):
            peak.bytes = max(peak.bytes, _resident_bytes(psutil.Process(pid)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _resident_bytes(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total
