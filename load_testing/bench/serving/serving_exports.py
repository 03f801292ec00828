"""Exports over HTTP beside DuckDB's own COPY of the same rows. Goals: NDJSON 500k rows/s, Parquet 0.7 of COPY."""

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

import duckdb
import httpx
import psutil
from rich.table import Table

from load_testing.bench.memory import peak_memory
from load_testing.bench.servers import Server, api_environment, serving

_ROUNDS = 3
_THREADS = 2  # of DuckDB, in the serving API and in the peer
_BUILD_SECONDS = 600
_LAST_CHUNK = b"0\r\n\r\n"

# DuckDB's name of each format.
_FORMATS = {"parquet": "parquet", "arrow": None, "ndjson": "json", "csv": "csv"}


class _Cost(NamedTuple):
    """What something takes; on a busy machine the cores' seconds are the fairer ones to compare."""

    seconds: float
    core_seconds: float


class _Run(NamedTuple):
    """One export, and the peer beside it."""

    cost: _Cost
    bytes: int
    peak_bytes: int
    copy: _Cost | None


def measure(database_url: str, rows: int) -> Table:
    """Export `rows` demo texts in turns with the peer; shows the medians of the rounds."""
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "cli", "demo-data", "--texts", str(rows)],
        env=environ | {"DATABASE_URL": database_url},
        check=True,
    )
    with TemporaryDirectory() as folder:
        # To build the search index would take processor time and memory meanwhile.
        env = {"DATA_DIR": folder, "REPLICA_THREADS": str(_THREADS), "SERVING_SEARCH_INDEX": "false"}
        env |= api_environment(database_url)
        with serving(["serving_api"], env) as server:
            _wait_for(server, rows)
            copy = _make_peer(server, Path(folder))
            runs = [{name: _run(server, name, copy) for name in _FORMATS} for _ in range(_ROUNDS)]
    return _show(rows, runs)


def _wait_for(server: Server, rows: int) -> None:
    deadline = time.monotonic() + _BUILD_SECONDS
    while time.monotonic() < deadline:
        answer = httpx.get(f"{server.url}/stats")
        if answer.is_success and answer.json()["total"] == rows:
            return
        time.sleep(0.2)
    raise RuntimeError("the replica was not built in time")


def _make_peer(server: Server, folder: Path) -> Callable[[str], _Cost]:
    """Return what copies the same rows to a file with DuckDB alone, and tells what it took."""
    file = folder / "peer.parquet"
    with httpx.stream("GET", f"{server.url}/export.parquet", timeout=60) as answer, file.open("wb") as target:
        target.writelines(answer.iter_raw())
    peer = duckdb.connect(folder / "peer.duckdb", config={"threads": _THREADS})
    peer.execute("create table items as from read_parquet(?)", [str(file)])
    peer.execute("checkpoint")

    def copy(kind: str) -> _Cost:
        started, used = time.perf_counter(), time.process_time()
        peer.execute(f"copy items to '{folder / 'copy'}' (format {kind})")
        return _Cost(time.perf_counter() - started, time.process_time() - used)

    return copy


def _run(server: Server, name: str, copy: Callable[[str], _Cost]) -> _Run:
    kind = _FORMATS[name]
    of_copy = copy(kind) if kind else None
    started, used = time.perf_counter(), _core_seconds(server)
    with peak_memory(server.pid) as peak:
        size = _download(server.url, f"/export.{name}")
    cost = _Cost(time.perf_counter() - started, _core_seconds(server) - used)
    return _Run(cost, size, peak.bytes, of_copy)


def _core_seconds(server: Server) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def _download(url: str, path: str) -> int:
    """Take an answer over a plain socket, which costs less than what is measured; returns its bytes.

    Raises:
        RuntimeError: it is not whole.
    """
    target = urlsplit(url)
    buffer, size, tail = bytearray(2**20), 0, b""
    with socket.create_connection((target.hostname, target.port or 80)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while count := client.recv_into(buffer):
            size += count
            tail = (tail + bytes(buffer[max(0, count - len(_LAST_CHUNK)) : count]))[-len(_LAST_CHUNK) :]
    if tail != _LAST_CHUNK:
        raise RuntimeError(f"{path} was cut short")
    return size


def _show(rows: int, runs: list[dict[str, _Run]]) -> Table:
    table = Table(
        "format",
        "rows/s",
        "COPY rows/s",
        "ratio",
        "core s",
        "COPY core s",
        "MB",
        "peak MB of the API",
        title=f"Exports of {rows:,} texts over HTTP, beside DuckDB's COPY to a file",
    )
    for name in _FORMATS:
        of_format = [run[name] for run in runs]
        copies = [run.copy for run in of_format if run.copy]
        ratios = [run.copy.seconds / run.cost.seconds for run in of_format if run.copy]
        table.add_row(
            name,
            f"{rows / statistics.median(run.cost.seconds for run in of_format):,.0f}",
            f"{rows / statistics.median(copy.seconds for copy in copies):,.0f}" if copies else "-",
            f"{statistics.median(ratios):.2f}" if ratios else "-",
            f"{statistics.median(run.cost.core_seconds for run in of_format):.2f}",
            f"{statistics.median(copy.core_seconds for copy in copies):.2f}" if copies else "-",
            f"{of_format[0].bytes / 1e6:,.0f}",
            f"{max(run.peak_bytes for run in of_format) / 1e6:,.0f}",
        )
    return table
