"""What Postgres holds."""

from typing import Any

import psycopg


def fetch(database_url: str, query: str, *values: Any) -> list[Any]:
    """Run a query of the test's own."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(query, values).fetchall()


def statuses(database_url: str) -> dict[str, int]:
    """Return how many texts have each status."""
    return dict(fetch(database_url, "select status, count(*) from texts group by status"))
