"""Benchmarks of the ingestion API on one Postgres: single texts, bulk uploads, both together, growing tables."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain, repeat

import orjson
import psycopg

from load_testing.bench.bodies import FORMATS, copy_ready, fill, make_submissions, read_ready, upload
from load_testing.bench.harness import ROUNDS, FigureColumn, FigureTable, Sample, compare, in_turns, peak_memory
from load_testing.bench.servers import CLIENTS, Server, api_environment, post_all, serving
from local_stack.testing import RunningStack

_CLIENTS = (1, 16, 64, 256)
_TEXTS = 4000
_TEXTS_OF_ONE_CLIENT = 800
_QUIET_TEXTS = 2000
_BULK_ROWS = 200_000
_FEW_BULK_ROWS = 20_000
_SIZES = (0, 10_000, 1_000_000, 10_000_000)
_BULK_ROWS_OF_A_SIZE = 100_000

_LATENCIES = (FigureColumn("p50 ms", "p50", ".2f"), FigureColumn("p99 ms", "p99", ".2f"))
_LOAD = (FigureColumn("texts/s", "rate"), *_LATENCIES)
_BULK = (FigureColumn("COPY rows/s", "copy"), FigureColumn("ours / COPY", "ratio", ".2f"))


def measure_single(stack: RunningStack, _rows: int) -> FigureTable:
    """Compare single POSTs with the same checks without a database, and with one commit for each text."""
    env = api_environment(stack.database_url)
    table = FigureTable("Single POSTs", ("clients", "what"), (*_LOAD, FigureColumn("ours / it", "ratio", ".2f")))
    with ExitStack() as opened:
        urls = {
            "ours": opened.enter_context(serving(["ingestion_api"], env)).url,
            "no-op": opened.enter_context(serving(_peer("no_op"), env)).url,
            "one commit each": opened.enter_context(serving(_peer("commit_each"), env)).url,
        }
        for clients in _CLIENTS:
            count = _TEXTS_OF_ONE_CLIENT if clients == 1 else _TEXTS
            measured = in_turns({name: partial(_post, url, count, clients) for name, url in urls.items()})
            compare(measured, "ours", lambda ours, it: ours["rate"] / it["rate"])
            table.add_all(measured, str(clients))
    return table


def measure_bulk(stack: RunningStack, _rows: int) -> FigureTable:
    """Compare a bulk upload in each format with COPY of the same prepared rows, each into an empty table."""
    columns = (
        FigureColumn("rows/s", "ours"),
        *_BULK,
        FigureColumn(f"peak MB, {_FEW_BULK_ROWS:,} rows", "peak_of_few"),
        FigureColumn(f"peak MB, {_BULK_ROWS:,} rows", "peak"),
    )
    table = FigureTable("Bulk uploads", ("format",), columns)
    with (
        serving(["ingestion_api"], api_environment(stack.database_url)) as server,
        psycopg.connect(stack.database_url) as connection,
    ):
        table.add_all(in_turns({name: partial(_upload_format, name, server, connection) for name in FORMATS}))
        _empty(connection)
    return table


def measure_beside(stack: RunningStack, _rows: int) -> FigureTable:
    """Compare single POSTs during a bulk upload with quiet ones. Goal: less than three times the quiet p99."""
    table = FigureTable(
        "Beside a bulk upload", ("clients", "while"), (*_LOAD, FigureColumn("p99 / quiet", "ratio", ".2f"))
    )
    with serving(["ingestion_api"], api_environment(stack.database_url)) as server:
        for clients in (1, 16):
            cases = {"quiet": partial(_quiet, server.url, clients)}
            cases["NDJSON comes in"] = partial(_beside_bulk, server.url, clients)
            measured = in_turns(cases)
            compare(measured, "quiet", lambda quiet, it: it["p99"] / quiet["p99"])
            table.add_all(measured, str(clients))
    return table


def measure_sizes(stack: RunningStack, rows: int) -> FigureTable:
    """Measure single POSTs and bulk uploads at each table size up to `rows`; the benchmark adds to the rows."""
    columns = (
        FigureColumn(f"single texts/s, {CLIENTS} clients", "rate"),
        *_LATENCIES,
        FigureColumn("NDJSON rows/s", "ours"),
        FigureColumn("COPY rows/s", "copy"),
        FigureColumn("NDJSON / COPY", "ratio", ".2f"),
    )
    table = FigureTable("From an empty table to a full one", ("texts before",), columns)
    with serving(["ingestion_api"], api_environment(stack.database_url)) as server:
        for size in (size for size in _SIZES if size <= rows):
            fill(stack.database_url, size)
            table.add((f"{size:,}",), [_measure_size(server.url, stack.database_url) for _ in range(ROUNDS)])
    return table


def _peer(name: str) -> list[str]:
    app = f"load_testing.bench.peers.main:{name}"
    return ["uvicorn", app, "--factory", "--port", "{port}", "--no-access-log", "--log-level", "warning"]


def _post(url: str, count: int, clients: int) -> Sample:
    return post_all(f"{url}/texts", list(map(orjson.dumps, make_submissions(count))), clients)


def _upload_format(name: str, server: Server, connection: psycopg.Connection) -> Sample:
    few, many = (FORMATS[name](list(make_submissions(rows))) for rows in (_FEW_BULK_ROWS, _BULK_ROWS))
    with peak_memory(server.pid) as peak_of_few:
        upload(server.url, few)
    _empty(connection)
    with peak_memory(server.pid) as peak:
        ours = upload(server.url, many)
    ready = read_ready(connection, _BULK_ROWS)
    _empty(connection)
    copy = copy_ready(connection, ready, _BULK_ROWS)
    peaks = {"peak": peak.bytes / 1e6, "peak_of_few": peak_of_few.bytes / 1e6}
    return {"ours": ours, "copy": copy, "ratio": ours / copy, **peaks}


def _empty(connection: psycopg.Connection) -> None:
    connection.execute("truncate texts restart identity")
    connection.commit()


def _quiet(url: str, clients: int) -> Sample:
    return post_all(f"{url}/texts", map(orjson.dumps, make_submissions(_QUIET_TEXTS)), clients)


def _beside_bulk(url: str, clients: int) -> Sample:
    body = FORMATS["NDJSON"](list(make_submissions(_BULK_ROWS)))
    with ThreadPoolExecutor(1) as thread:
        bulk = thread.submit(upload, url, body)
        sample = post_all(f"{url}/texts", _bodies_until(bulk), clients)
        bulk.result()
    return sample


def _bodies_until(done: Future[float]) -> Iterator[bytes]:
    for submission in chain.from_iterable(make_submissions(_QUIET_TEXTS) for _ in repeat(None)):
        if done.done():
            return
        yield orjson.dumps(submission)


def _measure_size(url: str, database_url: str) -> Sample:
    single = _post(url, _TEXTS, CLIENTS)
    ours = upload(url, FORMATS["NDJSON"](list(make_submissions(_BULK_ROWS_OF_A_SIZE))))
    with psycopg.connect(database_url) as connection:
        copy = copy_ready(connection, read_ready(connection, _BULK_ROWS_OF_A_SIZE), _BULK_ROWS_OF_A_SIZE)
    return single | {"ours": ours, "copy": copy, "ratio": ours / copy}
