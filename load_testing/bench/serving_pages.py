"""Pages, single texts and totals of the serving API: how fast, and how that depends on the number of texts."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import httpx
from rich.table import Table

from load_testing.bench.servers import Server, serving
from load_testing.bench.serving_load import CLIENTS, Measured, measure_gets
from load_testing.bench.serving_requests import FRESH, REPEATED, REPEATED_STATS, paths
from load_testing.bench.serving_rows import ROWS_KEY, make_replica
from local_stack.settings import StackSettings
from serving_api.replica import Replica
from serving_api.search_follower import SearchFollower
from serving_api.settings import ReplicaSettings

FEW = 10_000
_NO_POSTGRES = "postgresql://nobody@127.0.0.1:9/nothing"


def measure(rows: int) -> Table:
    """Measure each kind of request over 10,000 texts and over `rows`."""
    table = Table(
        "request", "texts", "answers/s", "per core used", "p50 ms", "p99 ms", f"p50 / that at {FEW:,}",
        title=f"Serving API, {CLIENTS} clients",
    )  # fmt: skip
    few, many = _measure_size(FEW), _measure_size(rows)
    for kind in few:
        _add_row(table, kind, FEW, few[kind], few[kind])
        _add_row(table, kind, rows, many[kind], few[kind])
        table.add_section()
    return table


def _measure_size(rows: int) -> dict[str, Measured]:
    with serving_replica(rows, cache=False) as server:
        found = {f"{kind}, fresh": measure_gets(server, paths(request, rows)) for kind, request in FRESH.items()}
    with serving_replica(rows) as server:
        found |= measure_repeated(server)
    return found


def measure_repeated(server: Server) -> dict[str, Measured]:
    """Ask for one thing again and again."""
    etag = httpx.get(f"{server.url}{REPEATED}").raise_for_status().headers["etag"]
    held = f"If-None-Match: {etag}\r\n"
    return {
        "newest page, repeated": measure_gets(server, repeat(REPEATED)),
        "newest page, 304": measure_gets(server, repeat(REPEATED), 304, held),
        "GET /stats, repeated": measure_gets(server, repeat(REPEATED_STATS)),
    }


@contextmanager
def serving_replica(rows: int, cache: bool = True) -> Iterator[Server]:
    """Run the serving API over a replica of so many texts. There is no Postgres: all is in the file."""
    data = data_directory(rows)
    make_replica(replica_path(data), rows)
    _index(data)
    # What takes longer than the time limit is to be measured, not refused.
    env = {
        "SERVING_QUERY_SECONDS": "120",
        "DATABASE_URL": _NO_POSTGRES,
        "REQUIRE_API_KEY": "false",
        "LOG_LEVEL": "ERROR",
        "DATA_DIR": str(data),
    }
    with serving(["serving_api"], env | ({} if cache else {"SERVING_CACHE_BYTES": "0"})) as server:
        yield server


def _index(data: Path) -> None:
    """Build the search index, unless it is there: built by the server, it would take processor time meanwhile."""
    replica = Replica(replica_path(data), ReplicaSettings())
    replica.open()
    search = SearchFollower(replica)
    try:
        search.follow()
    finally:
        search.close()
        replica.close()


def data_directory(rows: int) -> Path:
    """Return the directory of the files with so many texts; kept, since ten million take minutes to make."""
    key = hashlib.sha256(ROWS_KEY).hexdigest()[:12]
    return StackSettings().cache_dir / "bench" / f"{rows}-texts-{key}"


def replica_path(data: Path) -> Path:
    """Return where the serving API has its replica."""
    return data / "serving" / "replica.duckdb"


def _add_row(table: Table, kind: str, rows: int, measured: Measured, few: Measured) -> None:
    load = measured.load
    table.add_row(
        kind,
        f"{rows:,}",
        f"{load.requests_per_second:,.0f}",
        f"{measured.answers_per_core:,.0f}",
        f"{load.quantile_ms(0.5):.2f}",
        f"{load.quantile_ms(0.99):.2f}",
        f"{load.quantile_ms(0.5) / few.load.quantile_ms(0.5):.2f}",
    )
