"""The pictures of a report, each from the rows of a table beside it."""

import math
from collections.abc import Mapping, Sequence

from load_testing.reports.percentiles import percentile
from load_testing.reports.summaries import Row
from load_testing.reports.svg import Axis, Points, plot

_LATENCY = Axis("milliseconds", logarithmic=True)
_SHOWN = ("p50_ms", "p95_ms", "p99_ms")
_NINES = tuple((float(n), word) for n, word in enumerate(("0 %", "90 %", "99 %", "99.9 %", "99.99 %")))
_PLACES = [place / 20 for place in range(81)]


def latency_by_users(rows: Sequence[Row]) -> str:
    """Draw the closed model's latencies against its users."""
    lines = {name.removesuffix("_ms"): _points(rows, "users", name) for name in _SHOWN}
    return plot("Latency against users, closed model", Axis("users"), _LATENCY, lines)


def throughput_by_users(rows: Sequence[Row]) -> str:
    """Draw the closed model's answers against its users."""
    lines = {"requests/s": _points(rows, "users", "per_second")}
    return plot("Requests a second against users, closed model", Axis("users"), Axis("requests a second"), lines)


def latency_by_second(rows_by_model: Mapping[str, Sequence[Row]]) -> str:
    """Draw how the p99 of each second went, one repeat after the other."""
    lines = {f"{model}, p99": _points(rows, "second", "p99_ms") for model, rows in rows_by_model.items()}
    return plot("p99 of each second", Axis("seconds, one repeat after the other"), _LATENCY, lines)


def latency_by_percentile(latencies_by_model: Mapping[str, Sequence[float]]) -> str:
    """Draw the whole distribution of latencies, its tail wide."""
    lines = {model: _tail(sorted(latencies)) for model, latencies in latencies_by_model.items()}
    return plot("Latency by percentile", Axis("percentile", ticks=_NINES), _LATENCY, lines)


def _tail(ordered: Sequence[float]) -> Points:
    """Return (nines, latency), as far as there are requests enough to tell."""
    furthest = math.log10(len(ordered)) if ordered else -1
    return [(place, percentile(ordered, 1 - 10**-place)) for place in _PLACES if place <= furthest]


def _points(rows: Sequence[Row], across: str, up: str) -> Points:
    return [(row[across], row[up]) for row in rows if row[up] is not None]
