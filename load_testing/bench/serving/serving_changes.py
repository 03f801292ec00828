"""Pages of changes, from a replica of few texts and from one of many, in turns."""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import httpx
from rich.table import Table

from load_testing.bench.servers import Server, serving
from serving_api.replica import tables
from serving_api.replica.repository import apply

_FEW = 10_000
_LIMIT = 100
_BUILT_VERSIONS = 100
_MERGED_VERSIONS = 40
_REQUESTS = 100
_ROUNDS = 3
_NO_POSTGRES = "postgresql://nobody@127.0.0.1:9/nothing"

# All follows from the number of a text: one label a second, `limit` of them in each version.
_ITEMS = """
    select md5('text ' || n)::uuid as id, 'toxicity' as dataset,
           'I think this update is great, and you should be ashamed. (demo text ' || n || ')' as text,
           'toxic' as label, 'labelled' as status, 1.0 as agreement, '{"toxic":2}' as votes, 2 as annotations,
           true as complete,
           1.0 as confidence, 'majority' as rule, 1 as rule_version, 'annotators' as decided_by, 'bench' as source,
           'demo-' || n as external_id, null as claimed_label, null as score, '{"number":' || n || '}' as metadata,
           '{}' as enrichment, null as predicted_label, null as predicted_probability, null as model_version,
           timestamp '2026-01-01' + to_seconds(n) as received_at, received_at as labelled_at,
           $first_version + (n - $first) // $limit as version
    from range($first::bigint, $last::bigint) as numbers(n)
"""

# Half of what a window brings is new, half of it was labelled before, anywhere.
_EDITED = """
    insert into new_items by name
    select * exclude (annotators, document) replace ($version as version) from items
    where id in (select md5('text ' || hash(n, $version) % $rows)::uuid from range($count) as numbers(n))
"""


def measure(rows: int) -> Table:
    """Measure over 10,000 texts and over `rows`, without a cache; medians of the rounds' p50."""
    table = Table("page", "texts", "p50 ms", f"p50 / that at {_FEW:,}", title=f"GET /changes?limit={_LIMIT}")
    with ExitStack() as stack:
        servers = {size: stack.enter_context(_serving(size)) for size in (_FEW, rows)}
        newest = _BUILT_VERSIONS + _MERGED_VERSIONS
        kinds = {
            "after the newest versions": range(newest - 20, newest - 1),
            "nothing new": range(newest, newest + 1),
            "60 versions behind": range(_BUILT_VERSIONS - 20, _BUILT_VERSIONS - 1),
        }
        for kind, since in kinds.items():
            p50s: dict[int, list[float]] = {size: [] for size in servers}
            for _ in range(_ROUNDS):
                for size, server in servers.items():
                    p50s[size].append(_p50_ms(server, since))
            for size, found in p50s.items():
                ratio = statistics.median(found) / statistics.median(p50s[_FEW])
                table.add_row(kind, f"{size:,}", f"{statistics.median(found):.2f}", f"{ratio:.2f}")
            table.add_section()
    return table


def _p50_ms(server: Server, since: range) -> float:
    seconds = []
    with httpx.Client(base_url=server.url) as client:
        for number in range(_REQUESTS):
            started = time.perf_counter()
            client.get(f"/changes?limit={_LIMIT}&since={since[number % len(since)]}").raise_for_status()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1000


@contextmanager
def _serving(rows: int) -> Iterator[Server]:
    """Run the serving API over a replica of so many texts. There is no Postgres: all is in the file."""
    with TemporaryDirectory(prefix="changes-") as folder:
        data = Path(folder)
        (data / "serving").mkdir()
        with duckdb.connect(data / "serving" / "replica.duckdb") as connection:
            _fill(connection, rows)
        env = {"DATABASE_URL": _NO_POSTGRES, "REQUIRE_API_KEY": "false", "LOG_LEVEL": "ERROR", "DATA_DIR": folder}
        with serving(["serving_api"], env | {"SERVING_CACHE_BYTES": "0"}) as server:
            yield server


def _fill(connection: duckdb.DuckDBPyConnection, rows: int) -> None:
    """Fill a replica: most of the texts at once, the last ones window by window."""
    for name, columns in tables.TABLES.items():
        connection.execute(f"create table {name} ({columns})")
    for name in ("annotations", "tombstones"):
        connection.execute(f"create temp table new_{name} as from {name} limit 0")
    # The last of the versions that a build finds are small, as those of labels that come one by one are.
    first_small = rows - (_BUILT_VERSIONS - 1) * _LIMIT
    _insert(connection, "items", 0, first_small, 1, limit=rows)
    _insert(connection, "items", first_small, rows, 2)
    for statement in tables.FINISH:
        connection.execute(statement)
    for window in range(_MERGED_VERSIONS):
        version, half = _BUILT_VERSIONS + 1 + window, _LIMIT // 2
        connection.execute(
            "create or replace temp table new_items as select * exclude (annotators, document) from items limit 0"
        )
        _insert(connection, "new_items", rows + window * half, rows + (window + 1) * half, version)
        connection.execute(_EDITED, {"version": version, "rows": rows // 2, "count": half})
        apply(connection)
    newest = _BUILT_VERSIONS + _MERGED_VERSIONS
    connection.execute("insert into layout values (?)", [tables.LAYOUT])
    connection.execute("insert into state values ('bench', ?, ?, now()::timestamp, 1)", [newest + 1, newest])


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, first: int, last: int, version: int, limit: int = _LIMIT
) -> None:
    values = {"first": first, "last": last, "first_version": version, "limit": limit}
    rows = f"({_ITEMS})" if table == "new_items" else f"({tables.derive(f'({_ITEMS})', 'annotations')})"
    connection.execute(f"insert into {table} by name from {rows}", values)
