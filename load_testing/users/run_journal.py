"""What one run has done: each request, what was acknowledged, what the generator itself took."""

import csv
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from core.datasets import DEFAULT_DATASET
from load_testing.users.answers import REFUSED

# A request that is sent later after its intended time than this is called late.
LATE_MS = 10.0
COLUMNS = ("at_s", "method", "name", "latency_ms", "late_ms", "users", "failure")


@dataclass
class Journal:
    """One run. Used from one thread; greenlets do not interrupt it."""

    seed: str = ""
    # Where the texts go.
    dataset: str = DEFAULT_DATASET
    # Numbers of the texts that a 2xx was received for; the texts follow from them.
    acknowledged: "array[int]" = field(default_factory=lambda: array("Q"))
    # Milliseconds, by what objective they count for.
    latencies: "dict[str, array[float]]" = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    _file: TextIO | None = None

    def __post_init__(self) -> None:
        """Begin now."""
        self._numbers = count()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def record_to(self, folder: Path) -> None:
        """Write each request to `requests.csv` in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "requests.csv").open("w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def next_number(self) -> int:
        """Return the number of a text that was not sent yet."""
        return next(self._numbers)

    def note(self, method: str, name: str, latency_ms: float, context: dict[str, Any], failure: str) -> None:
        """Note a request; `context` is that of CheckedUser.ask."""
        late_ms = context["late_ms"]
        refused = failure.startswith(REFUSED)
        failed = bool(failure) and not refused
        self.counts.update(requests=1, refused=refused, failures=failed, late=late_ms > LATE_MS)
        if context["objective"] and not refused:
            self.latencies.setdefault(context["objective"], array("d")).append(latency_ms)
        if self._file is not None:
            at = f"{context['at'] - self._wall:.4f}"
            self._writer.writerow(
                (at, method, name, f"{latency_ms:.3f}", f"{late_ms:.3f}", context["users"], failure)
            )

    def end(self) -> None:
        """Take the generator's own times, and close the file."""
        self.cpu_seconds = time.process_time() - self._cpu
        self.wall_seconds = time.perf_counter() - self._wall
        if self._file is not None:
            self._file.close()
            self._file = None


class _Current:
    journal = Journal()


def journal() -> Journal:
    """Return the present run's journal."""
    return _Current.journal


def begin(seed: str, dataset: str = DEFAULT_DATASET) -> Journal:
    """Begin a new run, and return its journal."""
    _Current.journal = Journal(seed, dataset)
    return _Current.journal
