"""Exact percentiles, and the number of users beyond which more users bring little more work done."""

import math
from collections.abc import Sequence
from itertools import pairwise

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 1.0}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest latency that `share` of all did not exceed (nearest rank; as numpy's `inverted_cdf`).

    `ordered` is sorted and not empty.
    """
    # Without the last part 0.07 * 100 would be beyond 7.
    rank = math.ceil(share * len(ordered) - 1e-9)
    return ordered[max(rank, 1) - 1]


def percentiles(latencies: Sequence[float]) -> dict[str, float | None]:
    """Return each of SHARES in the latencies' unit, rounded to a microsecond if that is ms; null without any."""
    ordered = sorted(latencies)
    if not ordered:
        return dict.fromkeys(SHARES)
    return {name: round(percentile(ordered, share), 3) for name, share in SHARES.items()}


_LEAST_GAIN = 0.5


def find_knee(levels: Sequence[tuple[int, float]]) -> int | None:
    """Return the number of users beyond which one more brings less than half of what the first ones brought each.

    `levels` are (users, requests a second), sorted by users. None: that was not reached.
    """
    if not levels:
        return None
    gain_of_first = levels[0][1] / levels[0][0]
    for (users, rate), (more_users, more_rate) in pairwise(levels):
        if (more_rate - rate) / (more_users - users) < _LEAST_GAIN * gain_of_first:
            return users
    return None
