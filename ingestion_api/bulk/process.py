"""Bulk bodies are stored by processes of their own: reading them keeps a core busy; single texts must not wait.

What runs here is called by `anyio.to_process` in one of a few processes that it keeps for that.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.connections import connect_in_thread
from core.datasets import Datasets
from core.settings import DatabaseSettings, TracingSettings, read_settings
from core.startup import step_back
from core.tables.decoding import decode
from core.tracing.tracing import tracing
from ingestion_api.bulk.body_pipe import receive_body
from ingestion_api.bulk.parameters import BulkParameters, make_upload
from ingestion_api.bulk.store import Counts, store_bulk
from ingestion_api.bulk.watch import limit_memory, report_each, reporting_to
from ingestion_api.settings import IngestionSettings

# The thread that reads rows must not keep the one that stores them waiting for the interpreter: by default it does
# for 5 ms at each step of the conversation with Postgres, which took a third of the speed.
_SWITCH_SECONDS = 0.0002


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """A bulk upload, in values that travel between processes."""

    media_type: str
    encoding: str
    parameters: BulkParameters
    datasets: Datasets
    allowed: frozenset[str] | None  # the datasets that its rows may name; None: all
    traceparent: str | None = None


def store_body(
    request: BulkRequest, body: Path, database: DatabaseSettings, settings: IngestionSettings, reports: Path
) -> Counts:
    """Store what comes through the pipe `body`; say through `reports` that it goes on.

    Raises:
        Problem: as `store_bulk`; or a parameter is wrong.
        ClientDisconnect: the client is gone; what it sent is stored.
    """
    prepare_process(settings)
    chunk_rows = settings.bulk_chunk_rows
    upload = make_upload(request.media_type, request.parameters, request.datasets, chunk_rows, request.allowed)
    chunks = decode(report_each(receive_body(body, settings.idle_seconds)), request.encoding)
    with (
        tracing_for(request.traceparent),
        connect_in_thread(database, "ingestion_api bulk") as connection,
        reporting_to(reports),
    ):
        return store_bulk(connection, upload, chunks)


@contextmanager
def tracing_for(traceparent: str | None) -> Iterator[None]:
    """Trace what the block stores as a part of a request, and send it: this process may be killed after that."""
    tracing.work_for(traceparent)
    try:
        yield
    finally:
        tracing.flush()


def prepare_process(settings: IngestionSettings) -> None:
    """Make this process one that stores rows."""
    limit_memory(settings.worker_memory_bytes)
    tracing.configure(read_settings(TracingSettings), "ingestion_api")
    step_back()
    sys.setswitchinterval(_SWITCH_SECONDS)
