"""Bulk uploads in each format, against COPY of the same rows, ready made, by a client with nothing else to do."""

import statistics
from collections import defaultdict
from dataclasses import dataclass

import psycopg
from rich.table import Table

from load_testing.bench.comments import make_submissions
from load_testing.bench.ingestion.bulk_bodies import FORMATS
from load_testing.bench.ingestion.bulk_load import copy_ready, read_ready, upload
from load_testing.bench.memory import peak_memory
from load_testing.bench.servers import Server, api_environment, serving

_ROWS = 200_000
_FEW_ROWS = 20_000
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Measured:
    ours: float
    floor: float
    peak_bytes: int
    peak_bytes_of_few: int


def measure(database_url: str) -> Table:
    """Measure in turns, round by round, each time into an empty table; shows the medians."""
    measured: dict[str, list[_Measured]] = defaultdict(list)
    with (
        serving(["ingestion_api"], api_environment(database_url)) as server,
        psycopg.connect(database_url) as connection,
    ):
        for _ in range(_ROUNDS):
            for name in FORMATS:
                measured[name].append(_measure_format(name, server, connection))
        _empty(connection)
    return _show(measured)


def _measure_format(name: str, server: Server, connection: psycopg.Connection) -> _Measured:
    few, many = (FORMATS[name](list(make_submissions(rows))) for rows in (_FEW_ROWS, _ROWS))
    with peak_memory(server.pid) as peak_of_few:
        upload(server.url, few)
    _empty(connection)
    with peak_memory(server.pid) as peak:
        ours = upload(server.url, many)
    ready = read_ready(connection, _ROWS)
    _empty(connection)
    return _Measured(ours, copy_ready(connection, ready, _ROWS), peak.bytes, peak_of_few.bytes)


def _empty(connection: psycopg.Connection) -> None:
    connection.execute("truncate texts restart identity")
    connection.commit()


def _show(measured: dict[str, list[_Measured]]) -> Table:
    table = Table(
        "format",
        "rows/s",
        "COPY rows/s",
        "ours / COPY",
        f"peak MB, {_FEW_ROWS:,} rows",
        f"peak MB, {_ROWS:,} rows",
        title="Bulk uploads",
    )
    for name, rounds in measured.items():
        table.add_row(
            name,
            f"{statistics.median(one.ours for one in rounds):,.0f}",
            f"{statistics.median(one.floor for one in rounds):,.0f}",
            f"{statistics.median(one.ours / one.floor for one in rounds):.2f}",
            f"{statistics.median(one.peak_bytes_of_few for one in rounds) / 1e6:.0f}",
            f"{statistics.median(one.peak_bytes for one in rounds) / 1e6:.0f}",
        )
    return table
