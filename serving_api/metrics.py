"""Metrics of the serving API."""

from prometheus_client import Counter, Gauge, Histogram

REPLICA_VERSION = Gauge("serving_replica_version", "Point of the change feed that the replica has applied")
REPLICA_ROWS = Gauge("serving_replica_rows", "Labelled texts in the replica")
REPLICA_AGE_SECONDS = Gauge("serving_replica_age_seconds", "Time since the replica last read Postgres")
FEED_HELD_SECONDS = Gauge(
    "serving_feed_held_seconds", "How long an open transaction in Postgres has been holding back the change feed"
)
APPLY_SECONDS = Histogram(
    "serving_replica_apply_seconds",
    "Time to apply one window of the change feed, or to build the replica",
    ["kind"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
FEED_ERRORS = Counter("serving_feed_errors_total", "Attempts to follow the change feed that failed")
CACHE_LOOKUPS = Counter("serving_answer_cache_lookups_total", "Answers looked for in the cache", ["result"])
QUERIES_REFUSED = Counter("serving_queries_refused_total", "Queries answered with 503", ["reason"])
SEARCH_INDEX_VERSION = Gauge(
    "serving_search_index_version", "Point of the change feed that the search index holds"
)
SEARCH_SCANS = Counter("serving_search_scans_total", "Searches that read all texts, for there was no index yet")
