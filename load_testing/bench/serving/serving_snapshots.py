"""Snapshots beside DuckDB's own COPY of the same rows. Goal: 1 M rows in under 10 s, with flat memory."""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
from rich.table import Table

from core.datasets import load_datasets
from load_testing.bench.memory import peak_memory
from load_testing.bench.serving.serving_rows import make_replica
from serving_api.replica.replica import Replica
from serving_api.settings import DataSettings, ReplicaSettings
from serving_api.snapshots.parameters import parse_request
from serving_api.snapshots.service import Snapshots

_THREADS = 2
_SAME_ROWS = """
    select * exclude (gold_label, language, near_duplicate_of, version, annotators, document) from items
    order by labelled_at, id
"""
_BODIES = {
    "three splits": b'{"name": "plain"}',
    "stratified": b'{"name": "first", "stratify": true}',
    "stratified, after another one": b'{"name": "second", "stratify": true, "min_agreement": 0.6}',
}


def measure(rows: int) -> Table:
    """Make each kind of snapshot of so many texts once, in a service of its own folder."""
    table = Table("what", "seconds", "core s", "MB", "peak MB", title=f"Snapshots of {rows:,} texts")
    with TemporaryDirectory() as folder:
        data = DataSettings(data_dir=Path(folder))
        make_replica(data.replica_path, rows)
        replica = Replica(data.replica_path, ReplicaSettings(threads=_THREADS))
        replica.open()
        snapshots = Snapshots(replica, data, load_datasets(None))
        try:
            for name, body in _BODIES.items():
                table.add_row(name, *_make(snapshots, body))
        finally:
            replica.close()
            snapshots.close()
        for _ in range(2):  # the first one fills DuckDB's memory
            copied = _copy(data.replica_path, Path(folder) / "copy.parquet")
        table.add_row("COPY", *copied)
    return table


def _make(snapshots: Snapshots, body: bytes) -> tuple[str, ...]:
    request, query = parse_request(body, load_datasets(None))
    started, used = time.perf_counter(), time.process_time()
    with peak_memory(os.getpid()) as peak:
        manifest = snapshots.create(request, query).manifest
    size = sum(split.bytes for split in manifest.splits.values())
    return _row(started, used, size, peak.bytes)


def _copy(replica: Path, file: Path) -> tuple[str, ...]:
    """Let DuckDB write the same columns into one file, in the same order."""
    with duckdb.connect(replica, config={"threads": _THREADS}) as peer:
        started, used = time.perf_counter(), time.process_time()
        with peak_memory(os.getpid()) as peak:
            peer.execute(f"copy ({_SAME_ROWS}) to '{file}' (format parquet, compression zstd)")
        return _row(started, used, file.stat().st_size, peak.bytes)


def _row(started: float, used: float, size: int, peak: int) -> tuple[str, ...]:
    seconds, core_seconds = time.perf_counter() - started, time.process_time() - used
    return f"{seconds:.1f}", f"{core_seconds:.1f}", f"{size / 1e6:,.0f}", f"{peak / 1e6:,.0f}"
