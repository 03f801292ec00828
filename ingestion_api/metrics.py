"""Metrics of the ingestion API."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from core.metrics import start_at_zero

SUBMISSIONS = Counter("ingestion_submissions_total", "Submissions by outcome", ["outcome"])
WAITING = Gauge("ingestion_waiting_texts", "Single texts that wait for their commit", multiprocess_mode="livesum")
WAITING_LIMIT = Gauge(
    "ingestion_waiting_limit_texts",
    "Single texts that may wait for their commit; further ones are refused",
    multiprocess_mode="livesum",
)
COMMIT_SECONDS = Histogram(
    "ingestion_commit_seconds",
    "Time of one group commit",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
COMMIT_TEXTS = Histogram(
    "ingestion_commit_texts", "Texts in one group commit", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500)
)
BULK_UPLOADS = Gauge("ingestion_bulk_uploads", "Bulk uploads under way", multiprocess_mode="livesum")
IMPORTS = Counter("ingestion_imports_total", "Imports that this process ran, by how that ended", ["outcome"])
IMPORT_SECONDS = Histogram(
    "ingestion_import_seconds", "Time of one run of an import", buckets=(1, 5, 15, 60, 300, 900, 3600, 14400)
)
IMPORT_BYTES = Counter("ingestion_import_received_bytes_total", "Bytes of imports' bodies that were stored")
WEBHOOK_EVENTS = Counter(
    "ingestion_webhook_events_total",
    "Argilla's events by outcome: noted, ignored, malformed, forged (no valid signature)",
    ["outcome"],
)
WEBHOOK_LAG_SECONDS = Histogram(
    "ingestion_webhook_lag_seconds",
    "Time from an event in Argilla to its arrival, retries included",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 30, 90, 300, 3600),
)

start_at_zero(SUBMISSIONS, "accepted", "duplicate", "rejected")
start_at_zero(IMPORTS, "done", "failed", "crashed", "lost")
start_at_zero(WEBHOOK_EVENTS, "noted", "ignored", "malformed", "forged")


def count_submissions(counts: Mapping[str, Any]) -> None:
    """Count the rows of a bulk upload."""
    for name, outcome in (("accepted", "accepted"), ("duplicates", "duplicate"), ("rejected", "rejected")):
        SUBMISSIONS.labels(outcome).inc(counts.get(name, 0))
