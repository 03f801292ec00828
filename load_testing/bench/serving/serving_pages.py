"""Pages, single texts and totals of the serving API: how fast, and how that depends on the number of texts."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import httpx
from rich.table import Table

from load_testing.bench.servers import Server, serving
from load_testing.bench.serving.serving_load import CLIENTS, Measured, measure_gets
from load_testing.bench.serving.serving_requests import FRESH, REPEATED, REPEATED_STATS, paths
from load_testing.bench.serving.serving_rows import ROWS_KEY, make_replica
from local_stack.settings import StackSettings
from serving_api.replica.replica import Replica
from serving_api.search.follower import SearchFollower
from serving_api.settings import ReplicaSettings

FEW = 10_000
_NO_POSTGRES = "postgresql://nobody@127.0.0.1:9/nothing"


def measure(rows: int) -> Table:
    """Measure each kind of request over 10,000 texts and over `rows`."""
    table = Table(
        "request", "texts", "answers/s", "per core used", "p50 ms", "p99 ms", f"p50 / that at {FEW:,}",
        title=f"Serving API, {CLIENTS} clients",
    )  # fmt: skip
    # Kind by kind: a machine that changes its pace changes it for both.
    with serving_replica(FEW, cache=False) as small, serving_replica(rows, cache=False) as large:
        for kind, request in FRESH.items():
            few = measure_gets(small, paths(request, FEW))
            _add_rows(table, f"{kind}, fresh", rows, few, measure_gets(large, paths(request, rows)))
    with serving_replica(FEW) as small, serving_replica(rows) as large:
        for (kind, few), (_, many) in zip(_measure_repeated(small), _measure_repeated(large), strict=True):
            _add_rows(table, kind, rows, few, many)
    return table


def _measure_repeated(server: Server) -> Iterator[tuple[str, Measured]]:
    """Ask for one thing again and again; yield what was asked, each when it is its turn."""
    etag = httpx.get(f"{server.url}{REPEATED}").raise_for_status().headers["etag"]
    held = f"If-None-Match: {etag}\r\n"
    yield "newest page, repeated", measure_gets(server, repeat(REPEATED))
    yield "newest page, 304", measure_gets(server, repeat(REPEATED), 304, held)
    yield "GET /stats, repeated", measure_gets(server, repeat(REPEATED_STATS))


@contextmanager
def serving_replica(rows: int, cache: bool = True) -> Iterator[Server]:
    """Run the serving API over a replica of so many texts. There is no Postgres: all is in the file."""
    data = data_directory(rows)
    make_replica(replica_path(data), rows)
    build_index(data)
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


def build_index(data: Path) -> None:
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


def _add_rows(table: Table, kind: str, rows: int, few: Measured, many: Measured) -> None:
    for texts, measured in ((FEW, few), (rows, many)):
        load = measured.load
        table.add_row(
            kind,
            f"{texts:,}",
            f"{load.requests_per_second:,.0f}",
            f"{measured.answers_per_core:,.0f}",
            f"{load.quantile_ms(0.5):.2f}",
            f"{load.quantile_ms(0.99):.2f}",
            f"{load.quantile_ms(0.5) / few.load.quantile_ms(0.5):.2f}",
        )
    table.add_section()
