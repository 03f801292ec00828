"""The same pages from peers that serve tables as they are: ROAPI from Parquet, Datasette from SQLite."""

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import repeat
from pathlib import Path
from urllib.parse import urlencode

import duckdb
from rich.table import Table

from load_testing.bench.peer_environment import install_peer
from load_testing.bench.servers import Server, running_server
from load_testing.bench.serving.serving_load import CLIENTS, Measured, measure_gets
from load_testing.bench.serving.serving_pages import data_directory, replica_path, serving_replica
from load_testing.bench.serving.serving_requests import FRESH, LIMIT, REPEATED, paths
from load_testing.bench.serving.serving_rows import make_replica

# ROAPI holds its rows in memory.
_ROWS_MAX = 1_000_000
_COLUMNS = """
    id::varchar as id, dataset, text, label, status, agreement, votes, annotations, complete, confidence, rule,
    rule_version, decided_by, source, external_id, claimed_label, score, metadata, enrichment,
    strftime(received_at, '%Y-%m-%dT%H:%M:%S.%fZ') as received_at,
    strftime(labelled_at, '%Y-%m-%dT%H:%M:%S.%fZ') as labelled_at
"""

Parameters = dict[str, str | int]

_OURS: dict[str, Callable[[int], Iterator[str]]] = {
    "newest 100, another filter each time": lambda rows: paths(FRESH["newest page"], rows),
    "100 of a label, another place each time": lambda rows: paths(FRESH["label"], rows),
}
_ROAPI: dict[str, Parameters] = {
    "100, any": {"limit": LIMIT},
    "100 of a label, any": {"filter[label]": "'toxic'", "limit": LIMIT},
    "newest 100 of a label": {"filter[label]": "'toxic'", "sort": "-labelled_at", "limit": LIMIT},
}
_DATASETTE_BASE: Parameters = {"_size": LIMIT, "_shape": "array", "_nocount": 1, "_nofacet": 1, "_nosuggest": 1}
_DATASETTE: dict[str, Parameters] = {
    "100, any": _DATASETTE_BASE,
    "newest 100 of a label": _DATASETTE_BASE | {"label": "toxic", "_sort_desc": "labelled_at"},
}


def measure(rows: int) -> Table:
    """Measure ours and the peers in turn, over the same rows."""
    rows = min(rows, _ROWS_MAX)
    table = Table("server", "page", "answers/s", "cores", "per core used", "p50 ms", "p99 ms")
    table.title = f"Pages of {LIMIT} of {rows:,} texts, {CLIENTS} clients"
    with serving_replica(rows, cache=False) as server:
        for page, asked in _OURS.items():
            _add_row(table, "ours", page, measure_gets(server, asked(rows)))
    with serving_replica(rows) as server:
        _add_row(table, "ours", "newest 100, again and again", measure_gets(server, repeat(REPEATED)))
    table.add_section()
    for name, serve, prefix, pages in (
        ("ROAPI", _roapi, "/api/tables/items", _ROAPI),
        ("Datasette", _datasette, "/items/items.json", _DATASETTE),
    ):
        try:
            with serve(rows) as server:
                for page, parameters in pages.items():
                    path = f"{prefix}?{urlencode(parameters)}"
                    _add_row(table, name, page, measure_gets(server, repeat(path)))
        except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
            table.add_row(name, f"not measured: {str(getattr(error, 'stderr', '') or error)[-200:]}")
        table.add_section()
    return table


@contextmanager
def _roapi(rows: int) -> Iterator[Server]:
    program = install_peer("roapi") / "roapi"
    file = _peer_file(rows, "items.parquet")
    command = [program, "--addr-http", "127.0.0.1:{port}", "--table", f"items={file}"]
    # It opens ports for other protocols, too: 0 is any.
    others = ["--addr-postgres", "127.0.0.1:0", "--addr-flight-sql", "127.0.0.1:0"]
    with running_server([*map(str, command), *others], {}, "/health") as server:
        yield server


@contextmanager
def _datasette(rows: int) -> Iterator[Server]:
    program = install_peer("datasette") / "datasette"
    file = _peer_file(rows, "items.db")
    command = [program, "serve", "--immutable", file, "--port", "{port}", "--setting", "suggest_facets", "off"]
    with running_server(list(map(str, command)), {}, "/-/versions.json") as server:
        yield server


def _peer_file(rows: int, name: str) -> Path:
    data = data_directory(rows)
    make_replica(replica_path(data), rows)
    path = data / name
    if path.exists():
        return path
    unfinished = path.with_name(f"unfinished-{name}")
    unfinished.unlink(missing_ok=True)
    with duckdb.connect(replica_path(data), read_only=True) as connection:
        chosen = f"select {_COLUMNS} from items order by labelled_at desc, id"  # noqa: S608
        if name.endswith(".parquet"):
            connection.execute(f"copy ({chosen}) to '{unfinished}' (format parquet)")
        else:
            _write_sqlite(unfinished, connection.execute(chosen))
    unfinished.rename(path)
    return path


def _write_sqlite(path: Path, rows: duckdb.DuckDBPyConnection) -> None:
    names = [column[0] for column in rows.description or ()]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"create table items ({', '.join(names)})")
        while chunk := rows.fetchmany(50_000):
            connection.executemany(f"insert into items values ({', '.join('?' * len(names))})", chunk)  # noqa: S608
        connection.execute("create index by_time on items (labelled_at)")
        connection.execute("create index by_label on items (label, labelled_at)")


def _add_row(table: Table, server: str, page: str, measured: Measured) -> None:
    load = measured.load
    table.add_row(
        server,
        page,
        f"{load.requests_per_second:,.0f}",
        f"{measured.cores:.2f}",
        f"{measured.answers_per_core:,.0f}",
        f"{load.quantile_ms(0.5):.2f}",
        f"{load.quantile_ms(0.99):.2f}",
    )
