"""The journal of one run: its requests, the acknowledged texts, the generator's own time, and the verdict."""

import csv
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from core.datasets import DEFAULT_DATASET
from load_testing.reports.summaries import SHARES, percentile
from load_testing.users.checks import REFUSED

# A request is late if it is sent more than this after its intended time.
LATE_MS = 10.0
COLUMNS = ("at_s", "method", "name", "latency_ms", "late_ms", "users", "failure")


@dataclass
class Journal:
    """One run. Used from one thread; greenlets do not interrupt it."""

    seed: str = ""
    # The dataset of the texts.
    dataset: str = DEFAULT_DATASET
    # Numbers of the texts with a 2xx; the texts follow from them.
    acknowledged: "array[int]" = field(default_factory=lambda: array("Q"))
    # Milliseconds, by objective.
    latencies: "dict[str, array[float]]" = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    _file: TextIO | None = None

    def __post_init__(self) -> None:
        """Start the clocks."""
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
        """Return the number of a new text."""
        return next(self._numbers)

    def note(self, method: str, name: str, latency_ms: float, context: dict[str, Any], failure: str) -> None:
        """Record a request; `context` comes from CheckedUser.ask."""
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
        """Record the generator's own time, and close the file."""
        self.cpu_seconds = time.process_time() - self._cpu
        self.wall_seconds = time.perf_counter() - self._wall
        if self._file is not None:
            self._file.close()
            self._file = None


class _Current:
    journal = Journal()


def journal() -> Journal:
    """Return the journal of the current run."""
    return _Current.journal


def begin(seed: str, dataset: str = DEFAULT_DATASET) -> Journal:
    """Start a new run, and return its journal."""
    _Current.journal = Journal(seed, dataset)
    return _Current.journal


class Lookup(NamedTuple):
    """The number of acknowledged texts that were looked up, with the ids of lost and of unknown ones."""

    looked_up: int
    lost: list[str]
    unknown: list[str]


_SHOWN = 5
_NAMES = {"post": "POST /texts", "get": "GET without exports"}


def problems(journal: Journal, lookup: Lookup, objectives: dict[str, float]) -> list[str]:
    """Return the reasons why a run fails; `objectives` are p99 in ms for `post` and `get`, 0 for none."""
    return [*_of_texts(lookup), *_of_latencies(journal, objectives), *_of_requests(journal)]


def _of_texts(lookup: Lookup) -> Iterator[str]:
    if lookup.lost:
        ids = ", ".join(lookup.lost[:_SHOWN])
        yield f"{len(lookup.lost)} of {lookup.looked_up} acknowledged texts are lost: {ids}"
    if lookup.unknown:
        ids = ", ".join(lookup.unknown[:_SHOWN])
        yield f"{len(lookup.unknown)} of {lookup.looked_up} acknowledged texts could not be looked up: {ids}"


def _of_latencies(journal: Journal, objectives: dict[str, float]) -> Iterator[str]:
    for kind, limit_ms in objectives.items():
        latencies = journal.latencies.get(kind)
        if limit_ms and latencies:
            p99 = percentile(sorted(latencies), SHARES["p99"])
            if p99 > limit_ms:
                yield f"p99 of {_NAMES[kind]} is {p99:.1f} ms; the objective is {limit_ms:g} ms"


def _of_requests(journal: Journal) -> Iterator[str]:
    if failures := journal.counts["failures"]:
        yield f"{failures} of {journal.counts['requests']} requests failed"
    if dropped := journal.counts["dropped"]:
        yield f"{dropped} arrivals were dropped: too many requests were under way (--in-flight)"
    if not journal.counts["requests"]:
        yield "no request was sent"
