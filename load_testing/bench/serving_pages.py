"""Pages, single texts and totals of the serving API by the number of texts, and pages of ROAPI and Datasette.

Each request of a kind reads other texts. The peers serve plain tables: ROAPI from Parquet, Datasette from SQLite.
"""

import hashlib
import random
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import duckdb
import httpx

from core.datasets import DEFAULT_DATASET, load_datasets
from load_testing.bench.harness import (
    CLIENTS,
    LATENCIES,
    FigureColumn,
    FigureTable,
    Server,
    compare,
    in_turns,
    measure_gets,
    running_server,
)
from load_testing.bench.replica_rows import data_directory, make_replica, replica_path, serving_replica
from local_stack import StackError
from local_stack.components.downloads import install
from local_stack.settings import StackSettings
from serving_api.texts.parameters import TextsParameters
from serving_api.texts.query import Position, encode_cursor, microseconds, page_query

FEW = 10_000
LIMIT = 100

# Makes one request of a kind, among that number of texts.
Request = Callable[[random.Random, int], str]
Parameters = dict[str, str | int]
# The arguments of `measure_gets` after the server.
Load = tuple[Any, ...]

_DATASETS = load_datasets(None)
_LOCKS = Path(__file__).with_name("peers")
_RATE, _PER_CORE = FigureColumn("answers/s", "rate"), FigureColumn("per core used", "per_core")


def paths(request: Request, rows: int) -> Iterator[str]:
    """Yield the paths of a kind's requests without end; the same ones in each run."""
    chance = random.Random(0)  # noqa: S311 - places in a list, no secret
    while True:
        yield request(chance, rows)


def _moment(chance: random.Random, rows: int) -> datetime:
    """Return when one of the texts was labelled; one was labelled in each second up to about now."""
    return datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=chance.random() * rows)


def _newest(chance: random.Random, rows: int) -> str:
    # Nearly all texts match, but each filter is another list.
    return f"/texts?limit={LIMIT}&min_agreement={chance.random() / 10}"


def _before(chance: random.Random, rows: int) -> str:
    return f"/texts?limit={LIMIT}&labelled_before={_moment(chance, rows).isoformat()}Z"


def _between(chance: random.Random, rows: int) -> str:
    start = _moment(chance, rows)
    end = start + timedelta(hours=1)
    return f"/texts?limit={LIMIT}&labelled_after={start.isoformat()}Z&labelled_before={end.isoformat()}Z"


def _deep(**filters: str) -> Request:
    """Return a kind whose requests continue at a random place of the list with these filters."""
    parameters = TextsParameters.model_validate(
        filters | {"label": [filters["label"]] if "label" in filters else []}
    )
    fingerprint = page_query(parameters, parameters.label, _DATASETS).texts.fingerprint

    def path(chance: random.Random, rows: int) -> str:
        place = microseconds(_moment(chance, rows))
        following = encode_cursor(Position(place, uuid.UUID(int=0)), fingerprint)
        return f"/texts?{urlencode(filters | {'limit': LIMIT, 'cursor': following})}"

    return path


def _text(chance: random.Random, rows: int) -> str:
    digest = hashlib.md5(f"text {chance.randrange(rows)}".encode(), usedforsecurity=False).hexdigest()
    return f"/texts/{uuid.UUID(digest)}"


FRESH: dict[str, Request] = {
    "newest page": _newest,
    "page by cursor": _deep(),
    "page by cursor, oldest first": _deep(order="oldest"),
    "label": _deep(label="toxic"),
    "source, a third": _deep(source="forum"),
    "source, 1 in 10,000": _deep(source="rare"),
    "status, 1 in 50": _deep(status="disputed"),
    "annotator, half": _deep(annotator="bob"),
    "annotator, 1 in 1,000": _deep(annotator="cleo"),
    "min_agreement": _deep(min_agreement="0.9"),
    "labelled_before": _before,
    "an hour": _between,
    "GET /texts/{id}": _text,
    "GET /stats": lambda *_: f"/stats?dataset={DEFAULT_DATASET}",
}
REPEATED = f"/texts?limit={LIMIT}"

# ROAPI holds its rows in memory.
_ROWS_MAX = 1_000_000
_COLUMNS = """
    id::varchar as id, dataset, text, label, status, agreement, votes, annotations, complete, confidence, rule,
    rule_version, decided_by, source, external_id, claimed_label, score, metadata, enrichment,
    strftime(received_at, '%Y-%m-%dT%H:%M:%S.%fZ') as received_at,
    strftime(labelled_at, '%Y-%m-%dT%H:%M:%S.%fZ') as labelled_at
"""

# The pages with their kinds of requests.
_OURS = {"newest 100, another filter each time": "newest page", "100 of a label, another place each time": "label"}
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


def measure_pages(rows: int) -> FigureTable:
    """Measure each kind of request over 10,000 texts and over `rows`, first without the cache."""
    columns = (_RATE, _PER_CORE, *LATENCIES, FigureColumn(f"p50 / that at {FEW:,}", "ratio", ".2f"))
    table = FigureTable(f"Serving API, {CLIENTS} clients", ("request", "texts"), columns)
    for cache in (False, True):
        with ExitStack() as opened:
            servers = {size: opened.enter_context(serving_replica(size, cache)) for size in sorted({FEW, rows})}
            loads = {size: _repeated(server) if cache else _fresh(size) for size, server in servers.items()}
            for kind in loads[FEW]:
                cases = {
                    f"{size:,}": partial(measure_gets, server, *loads[size][kind])
                    for size, server in servers.items()
                }
                measured = in_turns(cases, rounds=1)
                compare(measured, f"{FEW:,}", lambda few, it: it["p50"] / few["p50"])
                table.add_all(measured, kind)
    return table


def _fresh(size: int) -> dict[str, Load]:
    return {f"{kind}, fresh": (paths(request, size),) for kind, request in FRESH.items()}


def _repeated(server: Server) -> dict[str, Load]:
    etag = httpx.get(f"{server.url}{REPEATED}").raise_for_status().headers["etag"]
    return {
        "newest page, repeated": (repeat(REPEATED),),
        "newest page, 304": (repeat(REPEATED), 304, f"If-None-Match: {etag}\r\n"),
        "GET /stats, repeated": (repeat("/stats"),),
    }


def measure_peers(rows: int) -> FigureTable:
    """Measure pages of ours and of the peers, one after the other, over the same rows."""
    rows = min(rows, _ROWS_MAX)
    columns = (_RATE, FigureColumn("cores", "cores", ".2f"), _PER_CORE, *LATENCIES)
    table = FigureTable(f"Pages of {LIMIT} of {rows:,} texts, {CLIENTS} clients", ("server", "page"), columns)
    with serving_replica(rows, cache=False) as server:
        for page, kind in _OURS.items():
            table.add(("ours", page), [measure_gets(server, paths(FRESH[kind], rows))])
    with serving_replica(rows) as server:
        table.add(("ours", "newest 100, again and again"), [measure_gets(server, repeat(REPEATED))])
    table.add_section()
    for name, serve, prefix, pages in (
        ("ROAPI", _roapi, "/api/tables/items", _ROAPI),
        ("Datasette", _datasette, "/items/items.json", _DATASETTE),
    ):
        try:
            with serve(rows) as server:
                for page, parameters in pages.items():
                    path = f"{prefix}?{urlencode(parameters)}"
                    table.add((name, page), [measure_gets(server, repeat(path))])
        except (StackError, RuntimeError, OSError) as error:
            table.add_row(name, f"not measured: {str(getattr(error, 'stderr', '') or error)[-200:]}")
        table.add_section()
    return table


@contextmanager
def _roapi(rows: int) -> Iterator[Server]:
    program = _installed("roapi")
    file = _peer_file(rows, "items.parquet")
    command = [program, "--addr-http", "127.0.0.1:{port}", "--table", f"items={file}"]
    # It opens ports for other protocols, too: 0 is any.
    others = ["--addr-postgres", "127.0.0.1:0", "--addr-flight-sql", "127.0.0.1:0"]
    with running_server([*map(str, command), *others], {}, "/health") as server:
        yield server


@contextmanager
def _datasette(rows: int) -> Iterator[Server]:
    program = _installed("datasette")
    file = _peer_file(rows, "items.db")
    command = [program, "serve", "--immutable", file, "--port", "{port}", "--setting", "suggest_facets", "off"]
    with running_server(list(map(str, command)), {}, "/-/versions.json") as server:
        yield server


def _installed(name: str) -> Path:
    return install(_LOCKS / f"{name}.lock", StackSettings().cache_dir) / "bin" / name


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
