"""Everything that follows Postgres: pages of changes, the build of a replica, and searches with their index."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import httpx
import psycopg
import pyarrow as pa
from rich.table import Table

from core.datasets import load_datasets
from core.models.labels import WINDOW_END
from load_testing.bench.harness import (
    FigureColumn,
    FigureTable,
    Sample,
    Server,
    compare,
    cost_of,
    folder_bytes,
    in_turns,
)
from load_testing.bench.replica_rows import create_tables, replica_path, serving_folder, set_version
from load_testing.targets import add_demo_texts
from local_stack.testing import RunningStack
from serving_api.replica import feed, repository, tables
from serving_api.replica.file import ReplicaFile
from serving_api.replica.replica import Replica
from serving_api.search.follower import SearchFollower
from serving_api.search.repository import list_hits
from serving_api.settings import ReplicaSettings
from serving_api.texts.parameters import TextsParameters
from serving_api.texts.query import page_query

_FEW = 10_000
_LIMIT = 100
_BUILT_VERSIONS = 100
_MERGED_VERSIONS = 40
_NEWEST = _BUILT_VERSIONS + _MERGED_VERSIONS
_REQUESTS = 100
_ANNOTATORS = 3
# The pages, with the versions that requests of each kind follow.
_PAGES = {
    "after the newest versions": range(_NEWEST - 20, _NEWEST - 1),
    "nothing new": range(_NEWEST, _NEWEST + 1),
    "60 versions behind": range(_BUILT_VERSIONS - 20, _BUILT_VERSIONS - 1),
}

# Everything follows from the number of a text: one label a second, `limit` of them in each version.
_NUMBERED = """
    select n, md5('text ' || n)::uuid as id, 'toxicity' as dataset,
           'I think this update is great, and you should be ashamed. (demo text ' || n || ')' as text,
           'toxic' as label, 'labelled' as status, 1.0 as agreement, '{"toxic":2}' as votes, 2 as annotations,
           true as complete, 1.0 as confidence, 'majority' as rule, 1 as rule_version, 'annotators' as decided_by,
           null as predicted_label, null as predicted_probability, null as model_version, 'bench' as source,
           'demo-' || n as external_id, null as claimed_label, null as score, '{"number":' || n || '}' as metadata,
           '{}' as enrichment,
           timestamp '2026-01-01' + to_seconds(n) as received_at, received_at as labelled_at,
           $first_version + (n - $first) // $limit as version
    from range($first::bigint, $last::bigint) as numbers(n)
"""
_ITEMS = f"select * exclude (n) from ({_NUMBERED})"  # noqa: S608 - constants

# Half of a window's labels are new. The other half changes labels of random earlier texts.
_EDITED = """
    insert into new_items by name
    select * exclude (annotators, document) replace ($version as version) from items
    where id in (select md5('text ' || hash(n, $version) % $rows)::uuid from range($count) as numbers(n))
"""


_REPEATS = 15
_SECONDS = 60.0
_WORDS = 50_000
# Twelve words of 50,000, a few of them much more frequent than most: each is its rank in hexadecimal, hashed.
_WORD = f"left(md5(floor({_WORDS} ** ((hash(n * 12 + k) % 1000000) / 1e6))::int::varchar), 3 + k % 5)"
_SEARCHED_ITEMS = f"""
    select * exclude (n) replace (
        list_reduce(list_transform(range(12), k -> {_WORD}), (a, b) -> a || ' ' || b)
        || case when n % 1000 = 7 then ' 有毒的话' else '' end as text,
        case when n % 3 = 0 then 'toxic' else 'non_toxic' end as label,
        'source ' || hash(n) % 500 as source, uuid() as id, '{{}}' as metadata
    ) from ({_NUMBERED})
"""  # noqa: S608 - constants

_SEARCHES: dict[str, dict[str, Any]] = {
    "one letter": {"q": "e"},
    "common substring": {"q": "c4c"},
    "substring with a space": {"q": "4 c"},
    "rare substring": {"q": "有毒"},
    "no hit": {"q": "zzz"},
    "no hit, common parts": {"q": "c4ca42 c4ca42"},
    "word": {"q": "c4ca", "match": "words"},
    "prefix": {"q": "c4", "match": "prefix"},
    "phrase": {"q": "c4ca c81e", "match": "phrase"},
    "common, rare source": {"q": "c4c", "source": "source 7"},
    "oldest first": {"q": "c4c", "order": "oldest"},
    "relevance, common": {"q": "c4c", "order": "relevance"},
    "relevance, rare": {"q": "有毒", "order": "relevance"},
}


def measure_changes(rows: int) -> FigureTable:
    """Measure pages of changes over 10,000 texts and over `rows`, without a cache."""
    columns = (FigureColumn("p50 ms", "p50", ".2f"), FigureColumn(f"p50 / that at {_FEW:,}", "ratio", ".2f"))
    table = FigureTable(f"GET /changes?limit={_LIMIT}", ("page", "texts"), columns)
    with ExitStack() as opened:
        servers = {f"{size:,}": opened.enter_context(_serving(size)) for size in (_FEW, rows)}
        for page, since in _PAGES.items():
            measured = in_turns({size: partial(_get_changes, server, since) for size, server in servers.items()})
            compare(measured, f"{_FEW:,}", lambda few, it: it["p50"] / few["p50"])
            table.add_all(measured, page)
    return table


def _get_changes(server: Server, since: range) -> Sample:
    seconds = []
    with httpx.Client(base_url=server.url) as client:
        for number in range(_REQUESTS):
            started = time.perf_counter()
            client.get(f"/changes?limit={_LIMIT}&since={since[number % len(since)]}").raise_for_status()
            seconds.append(time.perf_counter() - started)
    return {"p50": statistics.median(seconds) * 1000}


@contextmanager
def _serving(rows: int) -> Iterator[Server]:
    with TemporaryDirectory(prefix="changes-") as folder:
        path = replica_path(Path(folder))
        path.parent.mkdir()
        with duckdb.connect(path) as connection:
            _fill(connection, rows)
        with serving_folder(Path(folder), cache=False, settings={}) as server:
            yield server


def _fill(connection: duckdb.DuckDBPyConnection, rows: int) -> None:
    """Fill a replica: most texts in one statement, the last ones window by window."""
    create_tables(connection)
    for name in ("annotations", "tombstones"):
        connection.execute(f"create temp table new_{name} as from {name} limit 0")
    # The last versions of the build are small, as if the labels had come one by one.
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
        repository.apply(connection)
    set_version(connection, _NEWEST)


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, first: int, last: int, version: int, limit: int = _LIMIT
) -> None:
    values = {"first": first, "last": last, "first_version": version, "limit": limit}
    rows = f"({_ITEMS})" if table == "new_items" else f"({tables.derive(f'({_ITEMS})', 'annotations')})"
    connection.execute(f"insert into {table} by name from {rows}", values)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Rows in memory instead of a snapshot of Postgres, to run DuckDB alone."""

    rows: Mapping[str, pa.Table]

    @contextmanager
    def stream(self, statement: str, _start: int, _end: int, /) -> Iterator[pa.RecordBatchReader]:
        yield self.rows[statement].to_reader()


def measure_replica(stack: RunningStack, texts: int) -> FigureTable:
    """Build a replica of `texts` demo texts, and run both halves of that work separately."""
    url = stack.database_url
    add_demo_texts(url, texts, _ANNOTATORS)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum (analyze)")
    kept = _read(url)
    rows = {name: kept.rows[statement].num_rows for name, statement in feed.EVERYTHING.items()}
    # The rows of the replica: a labelled text is one row there, and two in Postgres.
    held = rows["labels"] + rows["answers"] + rows["tombstones"]
    columns = (
        FigureColumn("s", "seconds", ".2f"),
        FigureColumn("rows/s", "rows"),
        FigureColumn("texts/s", "texts"),
    )
    title = f"Building a replica of {rows['labels']:,} labelled texts: {held:,} rows"
    table = FigureTable(title, ("way",), columns)
    ways = {
        "Postgres alone: COPY TO STDOUT, binary, of the same rows": partial(_copy, url),
        "DuckDB alone: the same rows from memory": partial(_load, kept),
        "build of the replica": partial(_build, url),
    }
    table.add_all(in_turns({name: partial(_timed, run, rows["labels"], held) for name, run in ways.items()}))
    return table


def _timed(run: Callable[[], object], texts: int, rows: int) -> Sample:
    seconds = cost_of(run)["seconds"]
    return {"seconds": seconds, "rows": rows / seconds, "texts": texts / seconds}


def _read(database_url: str) -> _Kept:
    with feed.connect(database_url) as connection, feed.snapshot(connection) as snapshot:
        end = snapshot.head(0).window_end
        kept = {}
        for statement in feed.EVERYTHING.values():
            with snapshot.stream(statement, 0, end) as stream:
                kept[statement] = stream.read_all()
    return _Kept(kept)


def _copy(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        ((end,),) = connection.execute(f"select {WINDOW_END}::text").fetchall()
        for statement in feed.EVERYTHING.values():
            query = statement.format(start=0, end=end)
            with connection.cursor().copy(f"copy ({query}) to stdout (format binary)".encode()) as copy:
                for _ in copy:
                    pass


def _load(kept: _Kept) -> None:
    with TemporaryDirectory() as folder:
        settings = ReplicaSettings()
        file = ReplicaFile(Path(folder) / "replica.duckdb", settings, locked=False)
        with file.cursor() as cursor:
            repository.load(cursor, kept, 0, settings.build_threads)
        file.finish()


def _build(database_url: str) -> None:
    with TemporaryDirectory() as folder, feed.connect(database_url) as connection:
        replica = Replica(Path(folder) / "replica.duckdb", ReplicaSettings())
        replica.open()
        with feed.snapshot(connection) as snapshot:
            head = snapshot.head(0)
            replica.build(snapshot, head.identity, head.window_end)
        replica.close()


def measure_search(rows: int) -> Table:
    """Return medians for each power of ten from 10,000 texts to `rows`; in brackets those of reading all texts."""
    sizes = [size for size in (10_000, 100_000, 1_000_000, 10_000_000) if size <= max(rows, 10_000)]
    table = Table(title="Search, a page of 100, median in ms without HTTP (reading all texts beside)")
    table.add_column("search")
    columns = {size: _measure_searches(size) for size in sizes}
    for size in sizes:
        table.add_column(f"{size:,} texts", justify="right")
    for name in columns[sizes[0]]:
        table.add_row(name, *(columns[size][name] for size in sizes))
    return table


def _measure_searches(size: int) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        replica = Replica(Path(folder) / "replica.duckdb", ReplicaSettings())
        replica.open()
        follower = SearchFollower(replica)
        try:
            _fill_items(replica, size)
            started = time.perf_counter()
            follower.follow()
            seconds = time.perf_counter() - started
            found = {name: _time(replica, follower, parameters) for name, parameters in _SEARCHES.items()}
            held = folder_bytes(Path(folder) / "search")
        finally:
            follower.close()
            replica.close()
    return found | {"index built, texts/s": f"{size / seconds:,.0f}", "index, bytes a text": f"{held / size:.0f}"}


def _fill_items(replica: Replica, size: int) -> None:
    with replica.file.transaction() as cursor:
        derived = tables.derive(f"({_SEARCHED_ITEMS})", "annotations")
        values = {"first": 0, "last": size, "first_version": 1, "limit": size}
        cursor.execute(f"insert into items by name {derived}", values)
        cursor.execute("create index items_id on items (id)")
        cursor.execute("insert into state values ('bench', 1, 1, now()::timestamp, 1)")
    replica.close()
    replica.open()


def _time(replica: Replica, follower: SearchFollower, parameters: dict[str, Any]) -> str:
    page = page_query(TextsParameters(**parameters), [], load_datasets(None))
    times: dict[bool, list[float]] = {True: [], False: []}
    for by_index, repeats in ((True, _REPEATS), (False, 3)):
        for _ in range(repeats):
            started = time.perf_counter()
            with replica.reading() as cursor:
                snapshot = follower.snapshot_or_none(repository.get_point(cursor)) if by_index else None
                list_hits(cursor, page, 101, snapshot, time.monotonic() + _SECONDS)
            times[by_index].append(1000 * (time.perf_counter() - started))
    return f"{statistics.median(times[True]):.1f} ({statistics.median(times[False]):.0f})"
