"""Exact percentiles: of the latencies themselves, neither rounded nor sorted into classes."""

import math
from collections.abc import Sequence

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
