"""Exact percentiles, the knee, and sums of a run's requests by kind, by number of users and by second."""

import csv
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from load_testing.users.checks import REFUSED

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 1.0}


def percentile(latencies: Sequence[float], share: float) -> float:
    """Return the smallest latency that `share` of all did not exceed (nearest rank), of at least one."""
    return float(np.quantile(latencies, share, method="inverted_cdf"))


def percentiles(latencies: Sequence[float]) -> dict[str, float | None]:
    """Return each of SHARES in the latencies' unit, rounded to a microsecond if that is ms; null without any."""
    if not len(latencies):
        return dict.fromkeys(SHARES)
    found = np.quantile(latencies, list(SHARES.values()), method="inverted_cdf")
    return {name: round(float(value), 3) for name, value in zip(SHARES, found, strict=True)}


_LEAST_GAIN = 0.5


def find_knee(levels: Sequence[tuple[int, float]]) -> int | None:
    """Return the users beyond which no level adds half as many requests per further user as the first ones did.

    `levels` are (users, requests per second), sorted by users: the medians of several repeats. None: each level
    has a later one that still gains.
    """
    for number, (users, rate) in enumerate(levels[:-1]):
        gains = [(more_rate - rate) / (more - users) for more, more_rate in levels[number + 1 :]]
        if max(gains) < _LEAST_GAIN * levels[0][1] / levels[0][0]:
            return users
    return None


class Request(NamedTuple):
    """One request; `at_s` is its time of sending, intended in the open model, in seconds after the start."""

    at_s: float
    method: str
    name: str
    latency_ms: float
    late_ms: float
    users: int
    failure: str


COLUMNS = Request._fields


def read_requests(folder: Path) -> list[Request]:
    """Return the requests of the run that was recorded in this folder."""
    with (folder / "requests.csv").open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [
            Request(float(at), method, name, float(latency), float(late), int(users), failure)
            for at, method, name, latency, late, users, failure in rows
        ]


_LEVELS = 10
_COUNTS = {"requests", "answered", "refused", "failures"}

Row = dict[str, Any]
K = TypeVar("K")
V = TypeVar("V")


def by_name(requests: Sequence[Request]) -> list[Row]:
    """Return a row for each kind of request, for each API, and for all."""

    def names(request: Request) -> tuple[str, ...]:
        api = request.name.partition(":")[0]
        return "all", f"{api}: all", request.name.replace(": ", f": {request.method} ", 1)

    groups = _group((name, request) for request in requests for name in names(request))
    seconds = duration(requests)
    return [{"name": name, **_row(group, seconds)} for name, group in sorted(groups.items())]


def by_users(requests: Sequence[Request]) -> list[Row]:
    """Return a row for each number of users, or for at most ten classes of numbers."""
    in_second = {row["second"]: max(row["users"], 1) for row in by_second(requests)}
    width = -(-max(in_second.values(), default=1) // _LEVELS)
    levels = {second: -(-users // width) * width for second, users in in_second.items()}
    seconds = Counter(levels.values())
    groups = _group((levels[int(request.at_s)], request) for request in requests)
    return [{"users": users, **_row(group, seconds[users])} for users, group in sorted(groups.items())]


def by_second(requests: Iterable[Request]) -> list[Row]:
    """Return a row for each second in which a request was sent, with the most users in it."""
    groups = _group((int(request.at_s), request) for request in requests)
    return [
        {"second": second, "users": max(r.users for r in group), **_row(group, 1)}
        for second, group in sorted(groups.items())
    ]


def merge_repeats(rows: Iterable[Row], keys: Sequence[str]) -> list[Row]:
    """Return one row for each combination of `keys`, from rows of several repeats with the same columns.

    Counts are sums, and `NAME_least` is the count of the smallest repeat. Rates and latencies are medians. The
    lowest and the highest repeat are in `NAME_least` and `NAME_most`.
    """
    groups = _group((tuple(row[key] for key in keys), row) for row in rows)
    return [dict(zip(keys, found, strict=True)) | _merged(group, keys) for found, group in groups.items()]


def _group(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _merged(rows: Sequence[Row], keys: Sequence[str]) -> Row:
    merged: Row = {}
    ranges: Row = {}
    for name in [name for name in rows[0] if name not in keys]:
        values = [row[name] for row in rows if row[name] is not None]
        if name in _COUNTS:
            merged[name] = sum(values)
        else:
            merged[name] = round(statistics.median(values), 3) if values else None
            ranges[f"{name}_most"] = max(values, default=None)
        ranges[f"{name}_least"] = min(values, default=None)
    return merged | ranges


def without_refused(requests: Iterable[Request]) -> list[Request]:
    """Leave out the requests that the API refused because it was full: their latency means nothing."""
    return [request for request in requests if not request.failure.startswith(REFUSED)]


def _row(group: Sequence[Request], seconds: float) -> Row:
    served = without_refused(group)
    return {
        "requests": len(group),
        "refused": len(group) - len(served),
        "failures": sum(bool(request.failure) for request in served),
        "per_second": round(len(group) / seconds, 2),
        **{f"{name}_ms": value for name, value in percentiles([r.latency_ms for r in served]).items()},
    }


def duration(requests: Iterable[Request]) -> float:
    """Return the seconds from the start to the last request, at least 0.001."""
    return max([0.001, *(request.at_s for request in requests)])


def markdown_table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown: `head` is the line of the titles and the line of their alignments."""
    return "\n".join([head, *(f"| {' | '.join(map(str, cells))} |" for cells in rows)]) + "\n"


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Write rows of the same columns as CSV; the file is empty if there are none."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
        if rows:
            writer.writeheader()
        writer.writerows(rows)


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a CSV, with numbers as numbers and empty cells as None."""
    with file.open(newline="") as stream:
        return [{name: _value(name, word) for name, word in row.items()} for row in csv.DictReader(stream)]


def _value(name: str, word: str) -> Any:
    # A version is a name.
    if name == "version":
        return word
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word or None
