"""Prometheus metrics that all programs share; each program defines its own in its `metrics` module.

Names start with the program's (or `http_`), and end with the unit.
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import REGISTRY

# The environment variable in which prometheus_client looks for the folder of a program with several processes.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

HTTP_REQUEST_SECONDS = Histogram(
    "http_request_seconds",
    "Time from a request's first byte to the answer's last one",
    ["method", "route", "status"],
    buckets=LATENCY_BUCKETS,
)
HTTP_UNHANDLED_ERRORS = Counter("http_unhandled_errors_total", "Requests that ended in an unforeseen error")
HTTP_CONNECTIONS_REFUSED = Counter(
    "http_connections_refused_total", "Connections that a limit ended, by limit", ["reason"]
)


def start_at_zero(counter: Counter, *values: str | tuple[str, ...]) -> None:
    """Have a counter's series from the beginning, one for each value of its label, or tuple of values.

    Prometheus sees no increase in a series that begins with 1: the first failure would go unnoticed.
    """
    for one in values:
        counter.labels(*((one,) if isinstance(one, str) else one))


def metrics_registry() -> CollectorRegistry:
    """Return the metrics of all processes of the program."""
    if METRICS_FOLDER not in os.environ:
        return REGISTRY
    for file in Path(os.environ[METRICS_FOLDER]).glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not _is_running(pid):
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
