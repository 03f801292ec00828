"""Exports over HTTP and snapshots, compared with DuckDB's own COPY of the same rows.

Goals: NDJSON 500,000 rows/s, Parquet 0.7 of COPY; a snapshot of 1 M rows in under 10 s with flat memory.
"""

import os
from collections.abc import Callable
from contextlib import closing
from functools import partial
from http.client import HTTPConnection, IncompleteRead
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import duckdb
import httpx

from core.datasets import load_datasets
from load_testing.bench.harness import (
    FigureColumn,
    FigureTable,
    Sample,
    Server,
    api_environment,
    cost_of,
    in_turns,
    peak_memory,
    serving,
)
from load_testing.bench.replica_rows import make_replica
from load_testing.targets import add_demo_texts, wait_until_served
from local_stack.testing import RunningStack
from serving_api.replica.replica import Replica
from serving_api.settings import DataSettings, ReplicaSettings
from serving_api.snapshots.parameters import parse_request
from serving_api.snapshots.service import Snapshots

_NUMBERS = count()
_THREADS = 2  # of DuckDB, in the platform and in the peer
# The formats of exports, with DuckDB's name for each.
_FORMATS = {"parquet": "parquet", "arrow": None, "ndjson": "json", "csv": "csv"}
_SAME_ROWS = """
    select * exclude (gold_label, language, near_duplicate_of, version, annotators, document) from items
    order by labelled_at, id
"""
_BODIES = {
    "three splits": b'{"name": "plain"}',
    "stratified": b'{"name": "first", "stratify": true}',
    "stratified, after another one": b'{"name": "second", "stratify": true, "min_agreement": 0.6}',
}
_EXPORTS = (
    FigureColumn("rows/s", "rate"),
    FigureColumn("COPY rows/s", "copy_rate"),
    FigureColumn("ratio", "ratio", ".2f"),
    FigureColumn("core s", "core_seconds", ".2f"),
    FigureColumn("COPY core s", "copy_core_seconds", ".2f"),
    FigureColumn("MB", "size"),
    FigureColumn("peak MB of the API", "peak", combine=max),
)
_SNAPSHOTS = (
    FigureColumn("seconds", "seconds", ".1f"),
    FigureColumn("core s", "core_seconds", ".1f"),
    FigureColumn("MB", "size"),
    FigureColumn("peak MB", "peak"),
)


def measure_exports(stack: RunningStack, rows: int) -> FigureTable:
    """Export `rows` demo texts in turns with the peer, in each format."""
    add_demo_texts(stack.database_url, rows)
    title = f"Exports of {rows:,} texts over HTTP, beside DuckDB's COPY to a file"
    table = FigureTable(title, ("format",), _EXPORTS)
    with TemporaryDirectory() as folder:
        # Building the search index would use processor time and memory meanwhile.
        env = {"DATA_DIR": folder, "REPLICA_THREADS": str(_THREADS), "SERVING_SEARCH_INDEX": "false"}
        with serving(["serving_api"], env | api_environment(stack.database_url)) as server:
            wait_until_served(server.url, rows)
            copy = _make_peer(server, Path(folder))
            table.add_all(in_turns({name: partial(_export, server, name, rows, copy) for name in _FORMATS}))
    return table


def _make_peer(server: Server, folder: Path) -> Callable[[str], object]:
    """Return a function that copies the same rows to a file in a format, with DuckDB alone."""
    file = folder / "peer.parquet"
    with httpx.stream("GET", f"{server.url}/export.parquet", timeout=60) as answer, file.open("wb") as target:
        target.writelines(answer.iter_raw())
    peer = duckdb.connect(folder / "peer.duckdb", config={"threads": _THREADS})
    peer.execute("create table items as from read_parquet(?)", [str(file)])
    peer.execute("checkpoint")
    return lambda kind: peer.execute(f"copy items to '{folder / 'copy'}' (format {kind})")


def _export(server: Server, name: str, rows: int, copy: Callable[[str], object]) -> Sample:
    kind = _FORMATS[name]
    copied = cost_of(partial(copy, kind)) if kind else None
    sizes: list[int] = []
    with peak_memory(server.pid) as peak:
        # All texts match, but each export has another filter: the API keeps written Parquet files.
        path = f"/export.{name}?min_agreement=0.{next(_NUMBERS):06}"
        sample = cost_of(lambda: sizes.append(_download(server.url, path)), server.pid)
    sample |= {"rate": rows / sample["seconds"], "size": sizes[0] / 1e6, **peak}
    if copied:
        sample |= {"copy_rate": rows / copied["seconds"], "copy_core_seconds": copied["core_seconds"]}
        sample["ratio"] = copied["seconds"] / sample["seconds"]
    return sample


def _download(url: str, path: str) -> int:
    """Read a response with little processor time; return its bytes.

    Raises:
        IncompleteRead: it is incomplete.
    """
    target = urlsplit(url)
    buffer, size = bytearray(2**20), 0
    with closing(HTTPConnection(target.hostname or "", target.port)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        length = answer.getheader("Content-Length")
        while received := answer.readinto(buffer):
            size += received
    if length is not None and size != int(length):
        raise IncompleteRead(b"", int(length) - size)
    return size


def measure_snapshots(rows: int) -> FigureTable:
    """Make each kind of snapshot of `rows` texts once, in a service with a temporary folder."""
    table = FigureTable(f"Snapshots of {rows:,} texts", ("what",), _SNAPSHOTS)
    with TemporaryDirectory() as folder:
        data = DataSettings(data_dir=Path(folder))
        make_replica(data.replica_path, rows)
        replica = Replica(data.replica_path, ReplicaSettings(threads=_THREADS))
        replica.open()
        snapshots = Snapshots(replica, data, load_datasets(None))
        try:
            for name, body in _BODIES.items():
                table.add((name,), [_measured(partial(_make, snapshots, body))])
        finally:
            replica.close()
            snapshots.close()
        for _ in range(2):  # the first one fills DuckDB's memory
            with duckdb.connect(data.replica_path, config={"threads": _THREADS}) as peer:
                copied = _measured(partial(_copy, peer, Path(folder)))
        table.add(("COPY",), [copied])
    return table


def _measured(write: Callable[[], int]) -> Sample:
    """Return the cost of writing files in this process, and their size."""
    sizes: list[int] = []
    with peak_memory(os.getpid()) as peak:
        sample = cost_of(lambda: sizes.append(write()))
    return sample | {"size": sizes[0] / 1e6, **peak}


def _make(snapshots: Snapshots, body: bytes) -> int:
    manifest = snapshots.create(*parse_request(body, load_datasets(None))).manifest
    return sum(split.bytes for split in manifest.splits.values())


def _copy(peer: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """Let DuckDB write the same columns into one file, in the same order."""
    file = folder / "copy.parquet"
    peer.execute(f"copy ({_SAME_ROWS}) to '{file}' (format parquet, compression zstd)")
    return file.stat().st_size
