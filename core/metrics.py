"""Prometheus metrics that all programs share; each program defines its own in its `metrics` module.

Names start with the program's (or `http_`), and end with the unit.
"""

from prometheus_client import Counter, Histogram

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
