"""Exact percentiles, and the number of users beyond which more users bring little more work done."""

from collections.abc import Sequence

import numpy as np

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 1.0}


def percentile(latencies: Sequence[float], share: float) -> float:
    """Return the smallest latency that `share` of all did not exceed (nearest rank); there is at least one."""
    return float(np.quantile(latencies, share, method="inverted_cdf"))


def percentiles(latencies: Sequence[float]) -> dict[str, float | None]:
    """Return each of SHARES in the latencies' unit, rounded to a microsecond if that is ms; null without any."""
    if not len(latencies):
        return dict.fromkeys(SHARES)
    found = np.quantile(latencies, list(SHARES.values()), method="inverted_cdf")
    return {name: round(float(value), 3) for name, value in zip(SHARES, found, strict=True)}


_LEAST_GAIN = 0.5


def find_knee(levels: Sequence[tuple[int, float]]) -> int | None:
    """Return the users beyond which no level brings half as much for each further user as the first ones did.

    `levels` are (users, requests per second), sorted by users; of several repeats, take the medians. None: each
    level has a later one that still gains.
    """
    for number, (users, rate) in enumerate(levels[:-1]):
        gains = [(more_rate - rate) / (more - users) for more, more_rate in levels[number + 1 :]]
        if max(gains) < _LEAST_GAIN * levels[0][1] / levels[0][0]:
            return users
    return None
