"""Waiting for what happens elsewhere."""

import time
from collections.abc import Callable
from typing import Any

import psycopg


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> float:
    """Wait until the condition holds; return how many seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - started


def fetch(database_url: str, query: str, *values: Any) -> list[Any]:
    """Run a query of the test's own."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(query, values).fetchall()


def statuses(database_url: str) -> dict[str, int]:
    """Return how many texts have each status."""
    return dict(fetch(database_url, "select status, count(*) from texts group by status"))
