"""What is known of the replica before it is asked: how many texts there are of each kind, and of which times."""

import threading
import time

import duckdb

from serving_api import repository, windows
from serving_api.query import TextsQuery, kind_conditions
from serving_api.repository import Point
from serving_api.windows import Sample

# Old samples make pages slower, not wrong.
_SAMPLE_SECONDS = 60
_KINDS_MAX = 10_000


class Hints:
    """Totals of the newest version, and a sample of times; shared by the threads that query."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: tuple[Point | None, dict[str, int]] = (None, {})
        self._sample: Sample | None = None
        self._sampled_of: Point | None = None
        self._sampled_at = 0.0

    def count_texts(self, cursor: duckdb.DuckDBPyConnection, point: Point, query: TextsQuery) -> int:
        """Return how many texts there are of the query's kind, without counting them."""
        of, totals = self._totals
        if of != point or len(totals) > _KINDS_MAX:
            totals = {}
            self._totals = point, totals
        where, values = kind_conditions(query)
        kind = f"{where} {values!r}"
        if kind not in totals:
            totals[kind] = repository.sum_texts(cursor, where, values)
        return totals[kind]

    def sample(self, cursor: duckdb.DuckDBPyConnection, point: Point) -> Sample:
        """Return a sample of the moments at which texts were labelled, not much older than `point`."""
        with self._lock:
            is_old = self._sampled_of != point and time.monotonic() - self._sampled_at > _SAMPLE_SECONDS
            if self._sample is None or is_old:
                self._sample = windows.take_sample(cursor, repository.sum_texts(cursor, "true", []))
                self._sampled_of, self._sampled_at = point, time.monotonic()
            return self._sample
