"""What fails a run."""

from collections.abc import Iterator
from typing import NamedTuple

from load_testing.reports.percentiles import SHARES, percentile
from load_testing.users.run_journal import Journal


class Lookup(NamedTuple):
    """How many acknowledged texts were looked up; ids of the lost ones, and of those that nobody knows about."""

    looked_up: int
    lost: list[str]
    unknown: list[str]


_SHOWN = 5
_NAMES = {"post": "POST /texts", "get": "GET without exports"}


def problems(journal: Journal, lookup: Lookup, objectives: dict[str, float]) -> list[str]:
    """Return what is wrong with a run; `objectives` are p99 in ms for `post` and `get`, 0 for none."""
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
