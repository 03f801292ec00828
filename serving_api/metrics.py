"""Metrics of the serving API."""

from prometheus_client import Counter, Gauge, Histogram

from core.metrics import start_at_zero

# Of several processes, the one that is furthest behind counts.
REPLICA_VERSION = Gauge(
    "serving_replica_version", "Point of the change feed that the replica has applied", multiprocess_mode="livemin"
)
REPLICA_ROWS = Gauge("serving_replica_rows", "Labelled texts in the replica", multiprocess_mode="livemin")
REPLICA_AGE_SECONDS = Gauge(
    "serving_replica_age_seconds", "Time since the replica last read Postgres", multiprocess_mode="livemax"
)
FEED_HELD_SECONDS = Gauge(
    "serving_feed_held_seconds",
    "How long an open transaction in Postgres has been holding back the change feed",
    multiprocess_mode="livemax",
)
APPLY_SECONDS = Histogram(
    "serving_replica_apply_seconds",
    "Time to apply one window of the change feed, to build the replica, or to copy another process's",
    ["kind"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
LABEL_LAG_SECONDS = Histogram(
    "serving_label_lag_seconds",
    "Time from an annotator's answer in Argilla to its label in the replica; of windows with up to 500 texts",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400),
)
FEED_ERRORS = Counter("serving_feed_errors_total", "Attempts to follow the change feed that failed")
CACHE_LOOKUPS = Counter("serving_answer_cache_lookups_total", "Answers looked for in the cache", ["result"])
EXPORTS = Counter("serving_exports_total", "Exports by how they ended", ["format", "result"])
EXPORT_BYTES = Counter("serving_export_bytes_total", "Bytes of exports that were sent", ["format"])
QUERIES_REFUSED = Counter("serving_queries_refused_total", "Queries answered with 503 or 429", ["reason"])
OVERDUE = Gauge(
    "serving_overdue_queries",
    "Queries, exports and comparisons that still run after their time limit",
    ["kind"],
    multiprocess_mode="livesum",
)
STUCK = Counter(
    "serving_stuck_total",
    "Times that a process exited because overdue work held all threads of a kind",
    ["kind"],
)
CHANGES_WAITING = Gauge(
    "serving_changes_waiting",
    "Clients that wait for changes or are sent them",
    ["kind"],
    multiprocess_mode="livesum",
)
SEARCH_INDEX_VERSION = Gauge(
    "serving_search_index_version",
    "Point of the change feed that the search index holds",
    multiprocess_mode="livemin",
)
SEARCH_INDEX_BEHIND_SECONDS = Gauge(
    "serving_search_index_behind_seconds",
    "How long the search index has lacked a version that the replica has",
    multiprocess_mode="livemax",
)
SNAPSHOTS = Counter(
    "serving_snapshots_total",
    "Snapshot requests by outcome: written, found (it existed), refused, failed",
    ["outcome"],
)
SNAPSHOT_SECONDS = Histogram(
    "serving_snapshot_seconds", "Time to write a snapshot", buckets=(0.5, 1, 5, 15, 60, 300, 900, 3600)
)
MODEL_LOADS = Counter("serving_model_loads_total", "Models that became active and were loaded", ["result"])
DATA_FREE_BYTES = Gauge(
    "serving_data_free_bytes", "Free disk below DATA_DIR, for the program's user", multiprocess_mode="livemin"
)
DATA_SIZE_BYTES = Gauge(
    "serving_data_size_bytes", "Size of the disk that DATA_DIR is on", multiprocess_mode="livemin"
)
SEARCH_SCANS = Counter("serving_search_scans_total", "Searches that read all texts because there was no index yet")

start_at_zero(CACHE_LOOKUPS, "hit", "miss")
start_at_zero(QUERIES_REFUSED, "full", "share", "time", "exports")
start_at_zero(STUCK, "queries", "queries of snapshots", "exports", "comparisons of snapshots")
start_at_zero(SNAPSHOTS, "written", "found", "refused", "failed")
start_at_zero(MODEL_LOADS, "loaded", "failed")
