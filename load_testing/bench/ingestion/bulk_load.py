"""One bulk upload, and its floor: Postgres' COPY of the same rows, ready made, into the same table."""

import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import orjson
import psycopg

from load_testing.bench.ingestion.bulk_bodies import Body

_ROWS_A_COMMIT = 5000  # as the setting INGESTION_BULK_CHUNK_ROWS
_UPLOAD_SECONDS = 600
_COLUMNS = "dataset, text, claimed_label, score, source, external_id, metadata"


def upload(url: str, body: Body) -> float:
    """Upload a body whose rows are all new; returns the rows a second.

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
    """Return the newest rows, with ids that are new, as COPY takes them in binary: one piece for each commit."""
    pieces = []
    for skip in range(0, rows, _ROWS_A_COMMIT):
        newest = f"select * from texts order by sequence desc limit {_ROWS_A_COMMIT} offset {skip}"  # noqa: S608
        query = f"copy (select gen_random_uuid(), {_COLUMNS} from ({newest}) t) to stdout (format binary)"  # noqa: S608
        with connection.cursor().copy(query.encode()) as copy:
            pieces.append(b"".join(copy))
    return pieces


def copy_ready(connection: psycopg.Connection, pieces: list[bytes], rows: int) -> float:
    """Copy ready rows, with a commit wherever a bulk upload has one; returns the rows a second."""
    started = time.perf_counter()
    for piece in pieces:
        with connection.cursor().copy(f"copy texts (id, {_COLUMNS}) from stdin (format binary)".encode()) as copy:
            copy.write(piece)
        connection.commit()
    return rows / (time.perf_counter() - started)
