"""Benchmarks of the ingestion API on one Postgres: single texts, bulk uploads, both together, growing tables."""

import csv
import gzip
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from itertools import chain, repeat
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
import psycopg
import pyarrow as pa
from backports import zstd
from pyarrow import parquet

from load_testing.bench.harness import (
    CLIENTS,
    ROUNDS,
    FigureColumn,
    FigureTable,
    Sample,
    Server,
    api_environment,
    compare,
    in_turns,
    peak_memory,
    post_all,
    serving,
)
from local_stack.testing import RunningStack

_WORDS = ("you", "are", "the", "map", "update", "idiot", "thanks", "nobody", "better", "again")


def make_submissions(count: int) -> Iterator[dict[str, Any]]:
    """Yield `count` new submissions, other ones in each call."""
    run = os.urandom(6).hex()
    chance = random.Random(0)  # noqa: S311 - texts of realistic lengths, no secret
    for number in range(count):
        words = chance.choices(_WORDS, k=1 + min(int(chance.lognormvariate(2.6, 0.85)), 300))
        ending = "" if chance.random() < 0.8 else " naïve 😀"
        yield {
            "text": f"{' '.join(words)}{ending} {run}/{number}",
            "label": "toxic",
            "source": "bench",
            "external_id": f"post-{number}",
        }


Rows = list[dict[str, Any]]


class Body(NamedTuple):
    """A request body with its headers."""

    content: bytes
    headers: dict[str, str]


def _ndjson(rows: Rows) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def _csv(rows: Rows) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def _parquet(rows: Rows) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def _plain(media_type: str, write: Callable[[Rows], bytes]) -> Callable[[Rows], Body]:
    return lambda rows: Body(write(rows), {"Content-Type": media_type})


def _compressed(encoding: str, compress: Callable[[bytes], bytes]) -> Callable[[Rows], Body]:
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": encoding}
    return lambda rows: Body(compress(_ndjson(rows)), headers)


FORMATS: dict[str, Callable[[Rows], Body]] = {
    "NDJSON": _plain("application/x-ndjson", _ndjson),
    "NDJSON, gzip": _compressed("gzip", lambda content: gzip.compress(content, 6)),
    "NDJSON, zstd": _compressed("zstd", zstd.compress),
    "JSON array": _plain("application/json", orjson.dumps),
    "CSV": _plain("text/csv", _csv),
    "Parquet": _plain("application/vnd.apache.parquet", _parquet),
}


_ROWS_A_COMMIT = 5000  # as the setting INGESTION_BULK_CHUNK_ROWS
_UPLOAD_SECONDS = 600
_COLUMNS = "dataset, text, claimed_label, score, source, external_id, metadata"


def upload(url: str, body: Body) -> float:
    """Upload a body of new rows; return the rows per second.

    Raises:
        RuntimeError: not every row was accepted.
    """
    target = urlsplit(url)
    connection = HTTPConnection(target.hostname or "", target.port, timeout=_UPLOAD_SECONDS)
    started = time.perf_counter()
    connection.request("POST", "/texts/bulk", body.content, body.headers)
    answer = connection.getresponse()
    content = answer.read()
    seconds = time.perf_counter() - started
    connection.close()
    if answer.status != 200 or (result := orjson.loads(content))["accepted"] != result["received"]:
        raise RuntimeError(f"not all stored: {answer.status} {content[:1000].decode()}")
    return float(result["accepted"] / seconds)


def read_ready(connection: psycopg.Connection, rows: int) -> list[bytes]:
    """Return the newest rows with new ids in COPY's binary format, one piece for each commit."""
    pieces = []
    for skip in range(0, rows, _ROWS_A_COMMIT):
        newest = f"select * from texts order by sequence desc limit {_ROWS_A_COMMIT} offset {skip}"  # noqa: S608
        query = f"copy (select gen_random_uuid(), {_COLUMNS} from ({newest}) t) to stdout (format binary)"  # noqa: S608
        with connection.cursor().copy(query.encode()) as copy:
            pieces.append(b"".join(copy))
    return pieces


def copy_ready(connection: psycopg.Connection, pieces: list[bytes], rows: int) -> float:
    """Copy prepared rows, with the commits of a bulk upload; return the rows per second."""
    started = time.perf_counter()
    for piece in pieces:
        with connection.cursor().copy(f"copy texts (id, {_COLUMNS}) from stdin (format binary)".encode()) as copy:
            copy.write(piece)
        connection.commit()
    return rows / (time.perf_counter() - started)


_ROWS_A_STATEMENT = 1_000_000

# Most rows of a large table are uploaded.
_FILL = """
    insert into texts (id, dataset, text, claimed_label, source, external_id, status, uploaded_at)
    select gen_random_uuid(), 'toxicity', repeat('nobody thanks you ', (random() * 12)::int) || n, 'toxic',
           'bench', 'post-' || n, 'uploaded', now()
    from generate_series(1, %s) as n
"""


def fill(database_url: str, rows: int) -> None:
    """Fill the table with `rows` texts. Building the indexes afterwards takes less time."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("truncate texts restart identity")
        indexes = connection.execute(
            "select indexname, indexdef from pg_indexes where tablename = 'texts' and indexname <> 'pk_texts'"
        ).fetchall()
        connection.execute("alter table texts drop constraint pk_texts")
        for name, _ in indexes:
            connection.execute(f"drop index {name}".encode())
        for start in range(0, rows, _ROWS_A_STATEMENT):
            connection.execute(_FILL, [min(_ROWS_A_STATEMENT, rows - start)])
        connection.execute("alter table texts add constraint pk_texts primary key (id)")
        for _, definition in indexes:
            connection.execute(definition.encode())
        connection.execute("vacuum (analyze) texts")


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
    return {"ours": ours, "copy": copy, "ratio": ours / copy, "peak_of_few": peak_of_few["peak"], **peak}


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
