"""Single POSTs and bulk uploads from an empty table to a full one, with COPY of ready rows into the same table."""

import statistics
from dataclasses import dataclass

import orjson
import psycopg
from rich.table import Table

from load_testing.bench.comments import make_submissions
from load_testing.bench.http_load import Load, post_all
from load_testing.bench.ingestion.bulk_bodies import FORMATS
from load_testing.bench.ingestion.bulk_load import copy_ready, read_ready, upload
from load_testing.bench.ingestion.full_table import fill
from load_testing.bench.servers import api_environment, serving

_SIZES = (0, 10_000, 1_000_000, 10_000_000)
_CLIENTS = 16
_TEXTS = 4000
_BULK_ROWS = 100_000
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Measured:
    single: Load
    bulk: float
    floor: float


def measure(database_url: str, most_rows: int) -> Table:
    """Measure at each size up to `most_rows`; shows the medians. What is measured itself adds to the rows."""
    table = Table(
        "texts before",
        f"single texts/s, {_CLIENTS} clients",
        "p50 ms",
        "p99 ms",
        "NDJSON rows/s",
        "COPY rows/s",
        "NDJSON / COPY",
        title="From an empty table to a full one",
    )
    with serving(["ingestion_api"], api_environment(database_url)) as server:
        for size in (size for size in _SIZES if size <= most_rows):
            fill(database_url, size)
            _add_row(table, size, [_measure_round(server.url, database_url) for _ in range(_ROUNDS)])
    return table


def _measure_round(url: str, database_url: str) -> _Measured:
    single = post_all(f"{url}/texts", list(map(orjson.dumps, make_submissions(_TEXTS))), _CLIENTS)
    bulk = upload(url, FORMATS["NDJSON"](list(make_submissions(_BULK_ROWS))))
    with psycopg.connect(database_url) as connection:
        return _Measured(single, bulk, copy_ready(connection, read_ready(connection, _BULK_ROWS), _BULK_ROWS))


def _add_row(table: Table, size: int, rounds: list[_Measured]) -> None:
    table.add_row(
        f"{size:,}",
        f"{statistics.median(one.single.requests_per_second for one in rounds):,.0f}",
        f"{statistics.median(one.single.quantile_ms(0.5) for one in rounds):.2f}",
        f"{statistics.median(one.single.quantile_ms(0.99) for one in rounds):.2f}",
        f"{statistics.median(one.bulk for one in rounds):,.0f}",
        f"{statistics.median(one.floor for one in rounds):,.0f}",
        f"{statistics.median(one.bulk / one.floor for one in rounds):.2f}",
    )
