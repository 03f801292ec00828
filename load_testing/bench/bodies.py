"""Made-up comments for the benchmarks of the ingestion API: bodies in each format, uploads, COPY, full tables.

The comments are as long as real ones: half under 100 characters, a tenth over 250; a fifth is not ASCII.
"""

import csv
import gzip
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
import psycopg
import pyarrow as pa
from backports import zstd
from pyarrow import parquet

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
