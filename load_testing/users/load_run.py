"""One run of a load test: its options, the shapes of its load, its journal, and its verdict."""

import csv
import json
import re
import time
from argparse import ArgumentParser, ArgumentTypeError
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from core.datasets import DEFAULT_DATASET
from load_testing.reports.summaries import COLUMNS, SHARES, percentile
from load_testing.users.checks import REFUSED

# The only dataset whose texts a load test deletes. Its definition says `upload = false`.
LOADTEST = "loadtest"
_SEED = re.compile(r"[A-Za-z0-9._-]{1,40}")
# A request is late if it is sent more than this after its intended time.
_LATE_MS = 10.0
_STEPS = 10
_RAMP_SHARE = 0.5


def add_options(parser: ArgumentParser) -> None:
    """Add the options of both models."""
    add = parser.add_argument
    add("--dataset", default=LOADTEST, help="Dataset of the texts, on a platform that INGESTION_URL names")
    add("--keep", type=int, choices=(0, 1), default=0, help="1: leave the texts in the dataset loadtest")
    add("--seed", type=_seed, default="", help="Seed of the texts; none: other texts in each run")
    add("--objective-post-ms", type=float, default=0.0, help="p99 of POST /texts that fails the run; 0: none")
    add("--objective-get-ms", type=float, default=0.0, help="p99 of GET without exports that fails it; 0: none")


def add_closed_options(parser: ArgumentParser) -> None:
    """Add the options of the closed model; a listener of Locust's `init_command_line_parser`."""
    add = parser.add_argument
    add("--shape", choices=sorted(PLANS), default="ramp", help="What the shape class Plan does with the users")
    add("--think-seconds", type=float, default=0.5, help="Mean pause of a user between two requests; 0: none")


def add_open_options(parser: ArgumentParser) -> None:
    """Add the options of the open model; a listener of the same event."""
    add = parser.add_argument
    add(
        "--rate",
        type=float,
        default=50.0,
        help="Arrivals per second; 0 without the page: those of the closed run",
    )
    add("--in-flight", type=int, default=1000, help="Requests in flight at most; further arrivals are dropped")


def _seed(value: str) -> str:
    if value and not _SEED.fullmatch(value):
        raise ArgumentTypeError("1 to 40 of the characters A-Z a-z 0-9 . _ -")
    return value


def _ramp(passed: float, users: int) -> int:
    """Grow evenly for half of the time, then stay: 50 users in 100 s are one more each second."""
    return max(1, min(users, round(users * passed / _RAMP_SHARE)))


def _steps(passed: float, users: int) -> int:
    """Grow by a tenth of the users after each tenth of the time."""
    step = min(int(passed * _STEPS), _STEPS - 1) + 1
    return max(1, round(users * step / _STEPS))


def _spike(passed: float, users: int) -> int:
    """A tenth of the users; in the middle fifth of the time, all of them."""
    return users if 0.4 <= passed < 0.6 else max(1, users // 10)


def _soak(passed: float, users: int) -> int:
    """All users for the whole time."""
    return users


# The shapes of a load: the number of users, at least one, by the share of the time that has passed.
PLANS: dict[str, Callable[[float, int], int]] = {"ramp": _ramp, "steps": _steps, "spike": _spike, "soak": _soak}


@dataclass
class Journal:
    """The requests, the texts and the generator's own time.

    Used from one thread; greenlets do not interrupt it.
    """

    seed: str = ""
    # The dataset of the texts.
    dataset: str = DEFAULT_DATASET
    # Numbers of the texts with a 2xx; the texts follow from them.
    acknowledged: "array[int]" = field(default_factory=lambda: array("Q"))
    # Milliseconds, by objective.
    latencies: "dict[str, array[float]]" = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    generator: dict[str, float] = field(default_factory=dict)
    _folder: Path | None = None
    _file: TextIO | None = None

    def __post_init__(self) -> None:
        """Start the clocks."""
        self._numbers = count()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def record_to(self, folder: Path) -> None:
        """Write each request to `requests.csv` in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
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
        self.counts.update(requests=1, refused=refused, failures=failed, late=late_ms > _LATE_MS)
        if context["objective"] and not refused:
            self.latencies.setdefault(context["objective"], array("d")).append(latency_ms)
        if self._file is not None:
            at = f"{context['at'] - self._wall:.4f}"
            self._writer.writerow(
                (at, method, name, f"{latency_ms:.3f}", f"{late_ms:.3f}", context["users"], failure)
            )

    def end(self) -> None:
        """Measure the generator's own time, and close the file."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        times = {"cpu_seconds": cpu, "wall_seconds": wall, "cpu_share": cpu / wall}
        self.generator = {name: round(value, 3) for name, value in times.items()}
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, **said: object) -> None:
        """Write `run.json` with the seed and the generator's own time, if the run is recorded."""
        if self._folder is not None:
            content = {"seed": self.seed, "generator": self.generator, **said}
            (self._folder / "run.json").write_text(json.dumps(content, indent=2) + "\n")


class _Current:
    journal = Journal()


def journal() -> Journal:
    """Return the journal of the current run."""
    return _Current.journal


def begin(seed: str, dataset: str) -> Journal:
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
    for ids, words in ((lookup.lost, "are lost"), (lookup.unknown, "could not be looked up")):
        if ids:
            shown = ", ".join(ids[:_SHOWN])
            yield f"{len(ids)} of {lookup.looked_up} acknowledged texts {words}: {shown}"


def _of_latencies(journal: Journal, objectives: dict[str, float]) -> Iterator[str]:
    for kind, limit_ms in objectives.items():
        latencies = journal.latencies.get(kind)
        if limit_ms and latencies:
            p99 = percentile(latencies, SHARES["p99"])
            if p99 > limit_ms:
                yield f"p99 of {_NAMES[kind]} is {p99:.1f} ms; the objective is {limit_ms:g} ms"


def _of_requests(journal: Journal) -> Iterator[str]:
    if failures := journal.counts["failures"]:
        yield f"{failures} of {journal.counts['requests']} requests failed"
    if dropped := journal.counts["dropped"]:
        yield f"{dropped} arrivals were dropped: too many requests were under way (--in-flight)"
    if not journal.counts["requests"]:
        yield "no request was sent"
