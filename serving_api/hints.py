"""What is known of the replica before it is asked: how many texts there are of each kind, and of which times."""

import threading
import time
from collections.abc import Callable

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
        where, values = kind_conditions(query)
        return self._total(point, f"{where} {values!r}", lambda: repository.sum_texts(cursor, where, values))

    def count_likely(self, cursor: duckdb.DuckDBPyConnection, point: Point, query: TextsQuery) -> int:
        """Return about how many texts a query finds, where that is known without counting; else more."""
        texts, name = self.count_texts(cursor, point, query), query.filters.annotator
        if name is None:
            return texts
        kind = f"{query.dataset} annotated by {name}"
        return min(texts, self._total(point, kind, lambda: repository.count_answers(cursor, query.dataset, name)))

    def _total(self, point: Point, kind: str, count: Callable[[], int]) -> int:
        of, totals = self._totals
        if of != point or len(totals) > _KINDS_MAX:
            totals = {}
            self._totals = point, totals
        if kind not in totals:
            totals[kind] = count()
        return totals[kind]

    def sample(self, cursor: duckdb.DuckDBPyConnection, point: Point) -> Sample:
        """Return a sample of the moments at which texts were labelled, not much older than `point`."""
        with self._lock:
            is_old = self._sampled_of != point and time.monotonic() - self._sampled_at > _SAMPLE_SECONDS
            if self._sample is None or is_old:
                self._sample = windows.take_sample(cursor, repository.sum_texts(cursor, "true", []))
                self._sampled_of, self._sampled_at = point, time.monotonic()
            return self._sample
