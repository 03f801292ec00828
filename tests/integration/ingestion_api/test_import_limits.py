"""What bounds imports: keys, lengths, slow clients, memory, and time."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest

from tests.integration.ingestion_api.importing import (
    NDJSON,
    append,
    counts,
    ended,
    lines,
    open_import,
    stored_bytes,
)
from tests.programs import Program, running
from tests.waiting import wait_for


@contextmanager
def _api(database_url: str, folder: Path, **env: str) -> Iterator[tuple[Program, httpx.Client]]:
    env = {name if name.isupper() else f"INGESTION_{name.upper()}": value for name, value in env.items()}
    env |= {"DATABASE_URL": database_url}
    with (
        running("ingestion_api", env, folder / "log") as program,
        httpx.Client(base_url=program.url, timeout=30) as client,
    ):
        yield program, client


def test_a_body_over_the_limit_is_refused_and_dropped(database_url: str, tmp_path: Path) -> None:
    body = lines(100_000)
    with _api(database_url, tmp_path, import_max_bytes="1500000") as (_, client):
        assert client.post("/imports", content=body, headers=NDJSON).json()["code"] == "upload_too_large"
        assert client.get("/imports").json()["items"] == []
        unannounced = client.post("/imports", content=iter([body]), headers=NDJSON)
        assert (unannounced.status_code, unannounced.json()["code"]) == (413, "upload_too_large")
        assert client.get(unannounced.headers["location"]).json()["problem"]["code"] == "upload_too_large"
        with psycopg.connect(database_url, autocommit=True) as connection:
            wait_for(lambda: connection.execute("select count(*) from import_chunks").fetchone() == (0,))
        limits = client.head(open_import(client)).headers["upload-limit"]
        assert "max-size=1500000" in limits


def test_a_client_that_stops_sending_is_cut_off_and_may_go_on(database_url: str, tmp_path: Path) -> None:
    with _api(database_url, tmp_path, HTTP_BODY_SECONDS="0.5") as (program, client):
        path = open_import(client)
        with socket.create_connection(("127.0.0.1", urlsplit(program.url).port or 0), 30) as raw:
            raw.sendall(
                f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nUpload-Offset: 0\r\nUpload-Complete: ?0\r\n".encode()
            )
            raw.sendall(b'Content-Length: 1000\r\n\r\n{"text": "a"}\n')
            assert raw.recv(4096).startswith(b"HTTP/1.1 408 ")
        wait_for(lambda: stored_bytes(client, path) == 14)
        assert append(client, path, 14, b'{"text": "b"}\n', "?1").status_code == 202
        assert counts(ended(client, path)) == (2, 2, 0, 0)


def test_an_upload_that_nobody_continues_expires(database_url: str, tmp_path: Path) -> None:
    with _api(database_url, tmp_path, import_expire_seconds="1") as (_, client):
        path = open_import(client)
        append(client, path, 0, b"1234", "?0")
        result = ended(client, path)
        assert (result["state"], result["problem"]["code"]) == ("failed", "upload_expired")
        assert append(client, path, 4, b"x").json()["code"] == "import_ended"


def test_an_import_is_given_up_once_it_has_crashed_three_times(database_url: str, tmp_path: Path) -> None:
    with (
        _api(database_url, tmp_path) as (_, client),
        psycopg.connect(database_url, autocommit=True) as connection,
    ):

        def run(crashes: int) -> dict[str, Any]:
            path = open_import(client)
            connection.execute("update imports set crashes = %s where id = %s", [crashes, path[9:]])
            append(client, path, 0, b'{"text": "a"}\n', "?1")
            return ended(client, path)

        assert run(2)["state"] == "done"
        given_up = run(3)
        assert (given_up["state"], given_up["problem"]["code"]) == ("failed", "import_crashed")


def test_what_ended_long_ago_is_deleted(database_url: str, tmp_path: Path) -> None:
    with (
        _api(database_url, tmp_path, import_keep_days="0.5", import_rejects="30000") as (_, client),
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        old, young = (
            client.post("/imports", content=b"x\n" * 3, headers=NDJSON).headers["location"] for _ in range(2)
        )
        assert ended(client, old)["rejected"] == ended(client, young)["rejected"] == 3
        connection.execute("update imports set finished_at = now() - interval '13 hours' where id = %s", [old[9:]])
        wait_for(lambda: client.get(old).status_code == 404)
        assert client.get(young).status_code == 200
        assert connection.execute("select count(*) from import_rejects").fetchone() == (3,)


@pytest.mark.soak
def test_a_long_import_takes_constant_memory(database_url: str, tmp_path: Path) -> None:
    filler = "x" * 2000

    def rows(count: int) -> Iterator[bytes]:
        for n in range(count):
            yield json.dumps({"text": f"{n % 1000} {filler}"}).encode() + b"\n"

    def memory(program: Program) -> int:
        process = psutil.Process(program.process.pid)
        return sum(part.memory_info().rss for part in [process, *process.children(recursive=True)])

    with _api(database_url, tmp_path) as (program, client):
        for count, most in ((20_000, None), (80_000, 60e6)):
            before = memory(program)
            path = client.post("/imports", content=rows(count), headers=NDJSON).headers["location"]
            assert ended(client, path, 120)["received"] == count
            grown = memory(program) - before
            assert most is None or grown < most, f"160 MB of body took {grown / 1e6:.0f} MB of memory"


def test_imports_are_metrics(database_url: str, tmp_path: Path) -> None:
    def import_body(body: bytes, done: int) -> str:
        ended(client, client.post("/imports", content=body, headers=NDJSON).headers["location"])
        wait_for(lambda: f'ingestion_imports_total{{outcome="done"}} {done}.0' in client.get("/metrics").text)
        return client.get("/metrics").text

    with _api(database_url, tmp_path) as (_, client):
        clean, mixed = import_body(lines(5), 1), import_body(lines(5, "other") + b"x\n" * 3, 2)
    assert 'ingestion_submissions_total{outcome="accepted"} 5.0' in clean
    assert 'ingestion_submissions_total{outcome="rejected"} 0.0' in clean
    assert 'ingestion_submissions_total{outcome="accepted"} 10.0' in mixed
    assert 'ingestion_submissions_total{outcome="rejected"} 3.0' in mixed
