"""The body's length limits the work: a short body cannot keep a process busy, fill its memory or the disk."""

import gzip
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow as pa
import pytest

from tests.integration.ingestion_api.importing import NDJSON, ended, lines
from tests.parquet import pack, repeated
from tests.programs import Program, running

CSV = {"Content-Type": "text/csv"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
GZIP = {"Content-Encoding": "gzip"}
MIB = 1024 * 1024


@contextmanager
def api(database_url: str, folder: Path, **env: str) -> Iterator[tuple[Program, httpx.Client]]:
    """Run an ingestion API with these settings."""
    with (
        running("ingestion_api", {"DATABASE_URL": database_url} | env, folder / "log") as program,
        httpx.Client(base_url=program.url, timeout=120) as client,
    ):
        yield program, client


def bulk_and_import(client: httpx.Client, body: bytes, headers: dict[str, str]) -> list[dict[str, Any]]:
    """Send a body both ways; return the two problems."""
    answer = client.post("/texts/bulk", content=body, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    path = client.post("/imports", content=body, headers=headers).headers["location"]
    result = ended(client, path, 120)
    assert result["state"] == "failed"
    after = client.post("/imports", content=lines(1), headers=NDJSON).headers["location"]
    assert ended(client, after)["state"] == "done"
    return [answer.json(), result["problem"]]


# About a kilobyte each, but for the rows: 150 kB that would be 5 million rows.
BOMBS = {
    "columns": (gzip.compress(b"text" + b"," * 1_000_000 + b"\na\n"), CSV | GZIP, "too_many_columns"),
    "one value": (
        pack({"text": repeated("x" * MIB, 1000)}, write_statistics=False),
        PARQUET,
        "body_is_a_bomb",
    ),
    "rows": (pack({"text": pa.nulls(5_000_000, pa.string())}), PARQUET, "body_is_a_bomb"),
    "blank lines": (gzip.compress(b"\n" * 50_000_000), NDJSON | GZIP, "body_is_a_bomb"),
}


def test_short_bodies_that_become_much_are_refused(database_url: str, tmp_path: Path) -> None:
    with api(database_url, tmp_path) as (_, client):
        found = {
            case: [problem["code"] for problem in bulk_and_import(client, body, headers)]
            for case, (body, headers, _) in BOMBS.items()
        }
    assert found == {case: [code, code] for case, (_, _, code) in BOMBS.items()}


def test_columns_that_nobody_wants_are_not_read(database_url: str, tmp_path: Path) -> None:
    body = pack({"text": [f"text {n}" for n in range(1000)], "bomb": repeated("x" * MIB, 1000)})
    with api(database_url, tmp_path) as (_, client):
        assert client.post("/texts/bulk", content=body, headers=PARQUET).json()["accepted"] == 1000
        refused = client.post("/texts/bulk?metadata=all", content=body, headers=PARQUET)
    assert (refused.status_code, refused.json()["code"]) == (413, "body_is_a_bomb")


def test_a_body_that_takes_too_much_memory_is_refused(database_url: str, tmp_path: Path) -> None:
    # Its expanded size is announced and allowed for its length; but it is all in one page.
    noise = os.urandom(MIB // 2)
    body = pack({"text": ["x" * 200 * MIB], "noise": [noise]}, use_dictionary=False)
    with api(database_url, tmp_path, INGESTION_WORKER_MEMORY_BYTES=str(300 * MIB)) as (_, client):
        problems = bulk_and_import(client, body, PARQUET)
    assert [problem["code"] for problem in problems] == ["out_of_memory", "out_of_memory"]
    assert [problem["status"] for problem in problems] == [413, 413]
    assert problems[0]["received"] == 0


def test_a_body_that_is_read_for_too_long_is_refused(database_url: str, tmp_path: Path) -> None:
    # A row too long, which does not compress, so that the rest may compress well: 90 million blank lines.
    noise = os.urandom(600_000).hex().encode()
    body = gzip.compress(noise + b"\n" * 90_000_000)
    with api(database_url, tmp_path, INGESTION_WORKER_SECONDS="3") as (_, client):
        problems = bulk_and_import(client, body, NDJSON | GZIP)
    assert [(problem["code"], problem["status"]) for problem in problems] == [("no_progress", 422)] * 2


@pytest.mark.parametrize(
    ("env", "kept"), [({"INGESTION_IMPORT_REJECTS": "100"}, 100), ({"INGESTION_IMPORT_REJECT_BYTES": "5000"}, 45)]
)
def test_of_many_rejected_rows_the_first_are_kept(
    database_url: str, tmp_path: Path, env: dict[str, str], kept: int
) -> None:
    rows = b"".join(b'{"text": 1, "n": "%0100d"}\n' % n for n in range(12_000))
    with api(database_url, tmp_path, **env) as (_, client):
        path = client.post("/imports", content=gzip.compress(rows), headers=NDJSON | GZIP).headers["location"]
        result = ended(client, path)
        rejects = [json.loads(line)["row"] for line in client.get(f"{path}/rejects").text.splitlines()]
    assert (result["state"], result["rejected"]) == ("done", 12_000)
    assert result["rejects_kept"] == len(rejects) <= kept
    assert rejects == list(range(1, len(rejects) + 1))
    assert len(rejects) > kept / 3


class Drip:
    """A client that sends its body drop by drop, until it is answered."""

    def __init__(self, program: Program, head: str, drop: bytes, pause_seconds: float) -> None:
        self.answer = b""
        self._socket = socket.create_connection(("127.0.0.1", urlsplit(program.url).port or 0), timeout=60)
        self._socket.sendall(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._send, args=(drop, pause_seconds))
        self._thread.start()

    def _send(self, drop: bytes, pause_seconds: float) -> None:
        while not self._done.wait(pause_seconds):
            try:
                self._socket.sendall(drop)
            except OSError:
                return

    def wait(self) -> bytes:
        try:
            while part := self._socket.recv(65536):
                self.answer += part
        except ConnectionResetError:
            pass
        self._done.set()
        self._thread.join()
        self._socket.close()
        return self.answer


@pytest.mark.parametrize(
    "head",
    [
        "POST /texts HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 90000",
        "POST /texts/bulk HTTP/1.1\r\nContent-Type: application/x-ndjson\r\nContent-Length: 90000",
        "POST /imports HTTP/1.1\r\nContent-Type: application/x-ndjson\r\nContent-Length: 90000",
    ],
)
def test_who_sends_a_body_drop_by_drop_is_ended(database_url: str, tmp_path: Path, head: str) -> None:
    with api(database_url, tmp_path, HTTP_BODY_RATE_SECONDS="2") as (program, client):
        answer = Drip(program, head, b"x", 0.1).wait()
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert b'"body_too_slow"' in answer
        assert client.get("/queue").status_code == 200


def test_who_sends_fast_enough_or_is_not_read_is_not_ended(database_url: str, tmp_path: Path) -> None:
    env = {"HTTP_BODY_RATE_SECONDS": "1", "HTTP_BODY_BYTES_PER_SECOND": "200"}
    with api(database_url, tmp_path, **env) as (_, client), ExitStack() as stack:
        connection = stack.enter_context(pytest.importorskip("psycopg").connect(database_url))

        def body() -> Iterator[bytes]:
            filler = "x" * 2000
            for n in range(4000):
                if n == 3000:
                    lock.start()
                yield json.dumps({"text": f"{n} {filler}"}).encode() + b"\n"

        def hold() -> None:
            threading.Event().wait(4)
            connection.rollback()

        lock = threading.Thread(target=hold)
        connection.execute("lock table texts in exclusive mode")
        answer = client.post("/texts/bulk", content=body(), headers=NDJSON)
        lock.join()
    assert (answer.status_code, answer.json()["accepted"]) == (200, 4000)
