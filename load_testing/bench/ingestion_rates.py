"""Benchmarks of the ingestion API on one Postgres: single texts, bulk uploads, both together.

Their comments are as long as real ones: half under 100 characters, a tenth over 250; a fifth is not ASCII.
"""

import gzip
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain, repeat
from typing import Any, NamedTuple

import httpx
import orjson
import polars as pl
import psycopg
import pyarrow as pa
from backports import zstd
from pyarrow import parquet

from load_testing.bench.harness import (
    LATENCIES,
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

# Numbers of texts. `make bench ROWS=` lowers those that are above it.
_TEXTS = 4000
_TEXTS_OF_ONE_CLIENT = 800
_QUIET_TEXTS = 2000
_BULK_ROWS = 200_000

_WORDS = ("you", "are", "the", "map", "update", "idiot", "thanks", "nobody", "better", "again")
_ROWS_A_COMMIT = 5000  # as the setting INGESTION_BULK_CHUNK_ROWS
_UPLOAD_SECONDS = 600
_COLUMNS = "dataset, text, claimed_label, score, source, external_id, metadata"
_LOAD = (FigureColumn("texts/s", "rate"), *LATENCIES)

Rows = list[dict[str, Any]]


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


def measure_single(stack: RunningStack, rows: int) -> FigureTable:
    """Compare single POSTs with the same checks without a database, and with one commit for each text."""
    env = api_environment(stack.database_url)
    table = FigureTable("Single POSTs", ("clients", "what"), (*_LOAD, FigureColumn("ours / it", "ratio", ".2f")))
    with ExitStack() as opened:
        urls = {
            "ours": opened.enter_context(serving(["ingestion_api"], env)).url,
            "no-op": opened.enter_context(serving(_peer("no_op"), env)).url,
            "one commit each": opened.enter_context(serving(_peer("commit_each"), env)).url,
        }
        for clients in (1, 16, 64, 256):
            count = min(_TEXTS_OF_ONE_CLIENT if clients == 1 else _TEXTS, rows)
            measured = in_turns({name: partial(_post, url, count, clients) for name, url in urls.items()})
            compare(measured, "ours", lambda ours, it: ours["rate"] / it["rate"])
            table.add_all(measured, str(clients))
    return table


def _peer(name: str) -> list[str]:
    app = f"load_testing.bench.peers.main:{name}"
    return ["uvicorn", app, "--factory", "--port", "{port}", "--no-access-log", "--log-level", "warning"]


def _post(url: str, count: int, clients: int) -> Sample:
    return post_all(f"{url}/texts", list(map(orjson.dumps, make_submissions(count))), clients)


class _Body(NamedTuple):
    content: bytes
    headers: dict[str, str]


def _ndjson(rows: Rows) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def _parquet(rows: Rows) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


# The media type, the content coding, and the function that writes a body.
_FORMATS: dict[str, tuple[str, str, Callable[[Rows], bytes]]] = {
    "NDJSON": ("application/x-ndjson", "", _ndjson),
    "NDJSON, gzip": ("application/x-ndjson", "gzip", lambda rows: gzip.compress(_ndjson(rows), 6)),
    "NDJSON, zstd": ("application/x-ndjson", "zstd", lambda rows: zstd.compress(_ndjson(rows))),
    "JSON array": ("application/json", "", orjson.dumps),
    "CSV": ("text/csv", "", lambda rows: pl.DataFrame(rows).write_csv().encode()),
    "Parquet": ("application/vnd.apache.parquet", "", _parquet),
}


def _make_body(name: str, rows: int) -> _Body:
    media_type, coding, write = _FORMATS[name]
    headers = {"Content-Type": media_type} | ({"Content-Encoding": coding} if coding else {})
    return _Body(write(list(make_submissions(rows))), headers)


def _upload(url: str, body: _Body) -> float:
    """Upload a body of new rows; return the rows per second.

    Raises:
        RuntimeError: not every row was accepted.
    """
    started = time.perf_counter()
    answer = httpx.post(f"{url}/texts/bulk", content=body.content, headers=body.headers, timeout=_UPLOAD_SECONDS)
    seconds = time.perf_counter() - started
    if answer.status_code != 200 or (result := answer.json())["accepted"] != result["received"]:
        raise RuntimeError(f"not all stored: {answer.status_code} {answer.text[:1000]}")
    return float(result["accepted"] / seconds)


def measure_bulk(stack: RunningStack, rows: int) -> FigureTable:
    """Compare a bulk upload in each format with COPY of the same prepared rows, each into an empty table."""
    rows = min(_BULK_ROWS, rows)
    columns = (
        FigureColumn("rows/s", "ours"),
        FigureColumn("COPY rows/s", "copy"),
        FigureColumn("ours / COPY", "ratio", ".2f"),
        FigureColumn(f"peak MB, {rows // 10:,} rows", "peak_of_few"),
        FigureColumn(f"peak MB, {rows:,} rows", "peak"),
    )
    table = FigureTable("Bulk uploads", ("format",), columns)
    with (
        serving(["ingestion_api"], api_environment(stack.database_url)) as server,
        psycopg.connect(stack.database_url) as connection,
    ):
        cases = {name: partial(_measure_format, name, server, connection, rows) for name in _FORMATS}
        table.add_all(in_turns(cases))
        _empty(connection)
    return table


def _measure_format(name: str, server: Server, connection: psycopg.Connection, rows: int) -> Sample:
    few, many = _make_body(name, rows // 10), _make_body(name, rows)
    with peak_memory(server.pid) as peak_of_few:
        _upload(server.url, few)
    _empty(connection)
    with peak_memory(server.pid) as peak:
        ours = _upload(server.url, many)
    ready = _read_newest(connection, rows)
    _empty(connection)
    copy = _copy(connection, ready, rows)
    return {"ours": ours, "copy": copy, "ratio": ours / copy, "peak_of_few": peak_of_few["peak"], **peak}


def _empty(connection: psycopg.Connection) -> None:
    connection.execute("truncate texts restart identity")
    connection.commit()


def _read_newest(connection: psycopg.Connection, rows: int) -> list[bytes]:
    """Return the newest rows with new ids in COPY's binary format, one piece for each commit."""
    pieces = []
    for skip in range(0, rows, _ROWS_A_COMMIT):
        count = min(_ROWS_A_COMMIT, rows - skip)
        newest = f"select * from texts order by sequence desc limit {count} offset {skip}"  # noqa: S608
        query = f"copy (select gen_random_uuid(), {_COLUMNS} from ({newest}) t) to stdout (format binary)"  # noqa: S608
        with connection.cursor().copy(query.encode()) as copy:
            pieces.append(b"".join(copy))
    return pieces


def _copy(connection: psycopg.Connection, pieces: list[bytes], rows: int) -> float:
    """Copy prepared rows, with the commits of a bulk upload; return the rows per second."""
    started = time.perf_counter()
    for piece in pieces:
        with connection.cursor().copy(f"copy texts (id, {_COLUMNS}) from stdin (format binary)".encode()) as copy:
            copy.write(piece)
        connection.commit()
    return rows / (time.perf_counter() - started)


def measure_beside(stack: RunningStack, rows: int) -> FigureTable:
    """Compare single POSTs during a bulk upload with quiet ones. Goal: less than three times the quiet p99."""
    columns = (*_LOAD, FigureColumn("p99 / quiet", "ratio", ".2f"))
    table = FigureTable("Beside a bulk upload", ("clients", "while"), columns)
    with serving(["ingestion_api"], api_environment(stack.database_url)) as server:
        for clients in (1, 16):
            cases = {
                "quiet": partial(_post, server.url, min(_QUIET_TEXTS, rows), clients),
                "NDJSON comes in": partial(_post_beside_bulk, server.url, min(_BULK_ROWS, rows), clients),
            }
            measured = in_turns(cases)
            compare(measured, "quiet", lambda quiet, it: it["p99"] / quiet["p99"])
            table.add_all(measured, str(clients))
    return table


def _post_beside_bulk(url: str, rows: int, clients: int) -> Sample:
    body = _make_body("NDJSON", rows)
    with ThreadPoolExecutor(1) as thread:
        bulk = thread.submit(_upload, url, body)
        sample = post_all(f"{url}/texts", _bodies_until(bulk), clients)
        bulk.result()
    return sample


def _bodies_until(done: Future[float]) -> Iterator[bytes]:
    for submission in chain.from_iterable(make_submissions(_QUIET_TEXTS) for _ in repeat(None)):
        if done.done():
            return
        yield orjson.dumps(submission)
