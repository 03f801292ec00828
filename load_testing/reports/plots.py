"""The pictures of a report, each from the rows of a table beside it."""

import math
from collections.abc import Mapping, Sequence

from load_testing.reports.drawing import BLUE, GREY, ORANGE, STYLES, Axis, Line, Points, draw
from load_testing.reports.percentiles import percentile
from load_testing.reports.summaries import Row

# Of fewer samples a p99 is hardly more than their maximum.
LEAST_FOR_P99 = 100

_LATENCY = Axis("milliseconds", logarithmic=True)
_COLOURS = {"closed": BLUE, "open": ORANGE}
_NINES = tuple((float(n), word) for n, word in enumerate(("0 %", "90 %", "99 %", "99.9 %", "99.99 %")))
_PLACES = [place / 20 for place in range(81)]


def latency_by_users(rows: Sequence[Row]) -> str:
    """Draw the closed model's latencies against its users: medians of the repeats, with the band between them."""
    lines = [
        Line(name, _points(rows, "users", f"{name}_ms"), BLUE, style, _band(rows, f"{name}_ms"))
        for name, style in STYLES.items()
    ]
    return draw("Latency against users, closed model", Axis("users"), _LATENCY, lines, note_on_p99(rows))


def throughput_by_users(rows: Sequence[Row], think_seconds: float = 0) -> str:
    """Draw the closed model's answers against its users, beside what they offer: users by their mean pause."""
    lines = [Line("answered", _points(rows, "users", "per_second"), BLUE, band=_band(rows, "per_second"))]
    lines += offered_line(rows, think_seconds, max((row["per_second"] for row in rows), default=0))
    return draw("Requests per second against users, closed model", Axis("users"), Axis("requests/s"), lines)


def latency_by_second(rows_by_model: Mapping[str, Sequence[Row]]) -> str:
    """Draw the p50 and the greatest latency of each second, one repeat after the other.

    A second rarely has the 100 requests that a p99 needs.
    """
    lines = [
        Line(f"{model}, {word}", _points(rows, "second", f"{name}_ms"), _COLOURS[model], style, has_markers=False)
        for model, rows in rows_by_model.items()
        for name, word, style in (("p50", "p50", "-"), ("max", "maximum", ":"))
    ]
    return draw("Latency in each second", Axis("seconds, one repeat after the other"), _LATENCY, lines)


def latency_by_percentile(latencies_by_model: Mapping[str, Sequence[float]]) -> str:
    """Draw the whole distribution of latencies, with a wide tail."""
    lines = [
        Line(f"{model}, n = {len(latencies):,}", _tail(sorted(latencies)), _COLOURS[model], has_markers=False)
        for model, latencies in latencies_by_model.items()
    ]
    return draw("Latency by percentile", Axis("percentile", ticks=_NINES), _LATENCY, lines)


def offered_line(rows: Sequence[Row], think_seconds: float, most: float) -> list[Line]:
    """Return the requests per second that users would send if no answer took any time; none far beyond `most`."""
    if not rows or not think_seconds or rows[-1]["users"] / think_seconds > 10 * max(most, 1):
        return []
    return [Line("offered", [(row["users"], row["users"] / think_seconds) for row in rows], GREY, "--")]


def note_on_p99(rows: Sequence[Row], count: str = "requests") -> str:
    """Return a sentence about the levels that have too few samples for a p99; nothing if none has."""
    few = [row for row in rows if row[count] < LEAST_FOR_P99]
    if not few:
        return ""
    least, most = min(row[count] for row in few), max(row[count] for row in few)
    n = f"{least} to {most}" if least < most else str(least)
    return (
        f"no p99 of fewer than {LEAST_FOR_P99} samples (users {', '.join(str(r['users']) for r in few)}: n = {n})"
    )


def _tail(ordered: Sequence[float]) -> Points:
    """Return (nines, latency), as far as there are requests enough to tell."""
    furthest = math.log10(len(ordered)) if ordered else -1
    return [(place, percentile(ordered, 1 - 10**-place)) for place in _PLACES if place <= furthest]


def _points(rows: Sequence[Row], across: str, up: str) -> Points:
    return [
        (row[across], row[up])
        for row in rows
        if row[up] is not None and (up != "p99_ms" or row["requests"] >= LEAST_FOR_P99)
    ]


def _band(rows: Sequence[Row], name: str) -> list[tuple[float, float, float]]:
    return [
        (row["users"], row[f"{name}_least"], row[f"{name}_most"])
        for row in rows
        if row.get(f"{name}_least") is not None and (name != "p99_ms" or row["requests"] >= LEAST_FOR_P99)
    ]
