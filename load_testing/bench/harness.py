"""The harness of `make bench`: measures cases in turns, compares them, and prints the medians of the rounds.

A *sample* holds the figures of one measurement by name. A *case* is a function that measures once.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.table import Table

ROUNDS = 3
_MEMORY_INTERVAL_SECONDS = 0.02

Sample = dict[str, float]


class FigureColumn(NamedTuple):
    """A column: its title, its figure in the samples, the format, and how the rounds become one value."""

    title: str
    figure: str
    form: str = ",.0f"
    combine: Callable[[Iterable[float]], float] = statistics.median


class FigureTable(Table):
    """A table whose lines start with the names of a case; `columns` show figures of its samples."""

    def __init__(self, title: str, names: Sequence[str], columns: Sequence[FigureColumn]) -> None:
        """Make a table without lines."""
        super().__init__(*names, *(column.title for column in columns), title=title)
        self._figures = columns

    def add(self, names: Sequence[str], samples: Sequence[Sample]) -> None:
        """Add a line; a figure that no sample has is shown as "-"."""
        cells = []
        for column in self._figures:
            values = [sample[column.figure] for sample in samples if column.figure in sample]
            cells.append(format(column.combine(values), column.form) if values else "-")
        self.add_row(*names, *cells)

    def add_all(self, measured: Mapping[str, Sequence[Sample]], *names: str) -> None:
        """Add a line for each case, with `names` before the name of the case, and end the section."""
        for name, samples in measured.items():
            self.add((*names, name), samples)
        self.add_section()


def in_turns(cases: Mapping[str, Callable[[], Sample]], rounds: int = ROUNDS) -> dict[str, list[Sample]]:
    """Measure all cases in each round, so that a machine that changes its speed changes it for all of them."""
    measured: dict[str, list[Sample]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            measured[name].append(case())
    return measured


def compare(
    measured: Mapping[str, Sequence[Sample]], reference: str, ratio: Callable[[Sample, Sample], float]
) -> None:
    """Add a figure `ratio` to each sample, from the reference's sample of the same round and the sample itself."""
    for samples in measured.values():
        for base, sample in zip(measured[reference], samples, strict=True):
            sample["ratio"] = ratio(base, sample)


def cost_of(action: Callable[[], object], pid: int | None = None) -> Sample:
    """Run an action; return `seconds` and the `core_seconds` of a process with its children.

    Without `pid` the core seconds are those of this process alone.
    """
    used = processor_seconds(pid) if pid else time.process_time()
    started = time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "core_seconds": (processor_seconds(pid) if pid else time.process_time()) - used,
    }


def processor_seconds(pid: int) -> float:
    """Return the processor time so far of a process and its children."""
    total = 0.0
    for member in _family(pid):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
    return total


@dataclass(slots=True)
class Peak:
    """The highest resident memory of a process and its children; shared pages count for each of them."""

    bytes: int = 0


@contextmanager
def peak_memory(pid: int) -> Iterator[Peak]:
    """Measure the memory of a process every 20 ms until the block ends."""
    peak, done = Peak(), threading.Event()

    def look() -> None:
        while not done.wait(_MEMORY_INTERVAL_SECONDS):
            peak.bytes = max(peak.bytes, _resident_bytes(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def folder_bytes(folder: Path, pattern: str = "*") -> int:
    """Return the size of the files below a folder that match a pattern."""
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


def _resident_bytes(pid: int) -> int:
    total = 0
    for member in _family(pid):
        with suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
