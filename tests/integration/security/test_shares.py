"""One client cannot starve the others. Without keys a client is an address: 127.0.0.1, or 127.0.0.2."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.integration.ingestion_api.importing import NDJSON, append, ended, lines, open_import, stored_bytes
from tests.programs import Program, running
from tests.waiting import wait_for


@contextmanager
def api(database_url: str, folder: Path, **env: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Run an ingestion API with these settings; gives a greedy client and another one."""
    with (
        running("ingestion_api", {"DATABASE_URL": database_url} | env, folder / "log") as program,
        client(program, "127.0.0.1") as greedy,
        client(program, "127.0.0.2") as other,
    ):
        yield greedy, other


def client(program: Program, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address, limits=httpx.Limits(max_connections=None))
    return httpx.Client(base_url=program.url, timeout=60, transport=transport)


def test_bulk_uploads_of_one_client_leave_places_to_others(database_url: str, tmp_path: Path) -> None:
    under_way, let_go = threading.Barrier(3), threading.Event()

    def body() -> Iterator[bytes]:
        yield b'{"text": "a"}\n'
        under_way.wait(60)
        let_go.wait(60)
        yield b'{"text": "b"}\n'

    with api(database_url, tmp_path) as (greedy, other), ThreadPoolExecutor() as threads:
        uploads = [threads.submit(greedy.post, "/texts/bulk", content=body(), headers=NDJSON) for _ in range(2)]
        try:
            under_way.wait(60)
            # The places are taken when the bodies are asked for, which the clients cannot see.
            wait_for(lambda: "ingestion_bulk_uploads 2.0" in other.get("/metrics").text)
            refused = greedy.post("/texts/bulk", content=b'{"text": "c"}\n', headers=NDJSON)
            taken = other.post("/texts/bulk", content=b'{"text": "c"}\n', headers=NDJSON)
        finally:
            let_go.set()
        assert [upload.result().status_code for upload in uploads] == [200, 200]
        again = greedy.post("/texts/bulk", content=b'{"text": "c"}\n', headers=NDJSON)
    assert (refused.status_code, refused.json()["code"]) == (429, "share_exceeded")
    assert refused.headers["retry-after"]
    assert (taken.status_code, again.status_code) == (200, 200)


def test_single_texts_of_one_client_leave_room_to_others(database_url: str, tmp_path: Path) -> None:
    env = {"INGESTION_WAITING_LIMIT": "8", "INGESTION_COMMIT_SIZE": "1", "INGESTION_WAIT_SECONDS": "60"}
    with (
        api(database_url, tmp_path, **env) as (greedy, other),
        psycopg.connect(database_url) as connection,
        ThreadPoolExecutor(16) as threads,
    ):
        connection.execute("lock table texts in exclusive mode")
        # One is being committed, four wait: the half of eight.
        first = threads.submit(greedy.post, "/texts", json={"text": "first"})
        wait_for(lambda: _waits_for_lock(database_url))
        sent = [threads.submit(greedy.post, "/texts", json={"text": f"greedy {n}"}) for n in range(8)]
        wait_for(lambda: sum(future.done() for future in sent) == 4)
        late = threads.submit(other.post, "/texts", json={"text": "other"})
        wait_for(lambda: "ingestion_waiting_texts 5.0" in other.get("/metrics").text)
        connection.rollback()
        answers = [future.result() for future in sent]
        assert (first.result().status_code, late.result().status_code) == (201, 201)
    refused = [answer for answer in answers if answer.status_code != 201]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(429, "share_exceeded")] * 4


def _waits_for_lock(database_url: str) -> bool:
    query = "select count(*) from pg_locks where not granted"
    with psycopg.connect(database_url) as connection:
        row = connection.execute(query).fetchone()
    return row is not None and row[0] > 0


def test_an_import_waits_for_one_import_of_another_client_at_most(database_url: str, tmp_path: Path) -> None:
    with api(database_url, tmp_path) as (greedy, other), psycopg.connect(database_url) as connection:
        greedy_paths = [
            greedy.post("/imports", content=lines(20_000, f"greedy {n}"), headers=NDJSON).headers["location"]
            for n in range(8)
        ]
        path = other.post("/imports", content=lines(10), headers=NDJSON).headers["location"]
        assert ended(other, path, 120)["state"] == "done"
        for greedy_path in greedy_paths:
            assert ended(greedy, greedy_path, 180)["state"] == "done"
        clients = connection.execute("select distinct client from imports order by client").fetchall()
        overtaken = connection.execute(
            "select count(*) from imports as greedy, imports as other where other.client = '127.0.0.2' "
            "and greedy.client = '127.0.0.1' and greedy.started_at between other.received_at and other.started_at"
        ).fetchone()
    assert clients == [("127.0.0.1",), ("127.0.0.2",)]
    assert overtaken is not None
    assert overtaken[0] <= 1


def test_one_client_may_have_so_many_unfinished_imports(database_url: str, tmp_path: Path) -> None:
    with api(database_url, tmp_path, INGESTION_CLIENT_IMPORTS="2") as (greedy, other):
        first, _ = open_import(greedy), open_import(greedy)
        refused = greedy.post("/imports", content=lines(1), headers=NDJSON)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_imports")
        assert refused.headers["retry-after"]
        assert "delete" in refused.json()["detail"]
        assert ended(other, other.post("/imports", content=lines(1), headers=NDJSON).headers["location"])
        assert greedy.delete(first).status_code == 204
        for _ in range(3):  # those that have ended do not count
            made = greedy.post("/imports", content=lines(1), headers=NDJSON)
            assert ended(greedy, made.headers["location"])["state"] == "done"


def test_bodies_of_one_client_have_a_length_together(database_url: str, tmp_path: Path) -> None:
    mib = 1024 * 1024
    with api(database_url, tmp_path, INGESTION_CLIENT_IMPORT_BYTES=str(5 * mib)) as (greedy, other):
        first, second = open_import(greedy), open_import(greedy)
        assert append(greedy, first, 0, b"\n" * 3 * mib, "?0").status_code == 204
        announced = greedy.post("/imports", content=b"\n" * 3 * mib, headers=NDJSON)
        assert (announced.status_code, announced.json()["code"]) == (413, "import_bytes_exceeded")
        assert len(greedy.get("/imports").json()["items"]) == 2
        growing = append(greedy, second, 0, iter([b"\n" * mib] * 3), "?1")
        assert (growing.status_code, growing.json()["code"]) == (413, "import_bytes_exceeded")
        assert stored_bytes(greedy, second) == 2 * mib
        assert append(other, open_import(other), 0, b"\n" * 3 * mib, "?1").status_code == 202
        greedy.delete(first)
        wait_for(lambda: append(greedy, second, 2 * mib, b"\n" * mib, "?1").status_code == 202)
        assert ended(greedy, second)["state"] == "done"


@pytest.mark.parametrize("requests", [6])
def test_new_imports_at_once_are_counted_one_after_the_other(
    database_url: str, tmp_path: Path, requests: int
) -> None:
    with api(database_url, tmp_path, INGESTION_CLIENT_IMPORTS="2") as (greedy, _), ThreadPoolExecutor() as threads:
        headers = NDJSON | {"Upload-Complete": "?0"}
        sent = [threads.submit(greedy.post, "/imports", headers=headers) for _ in range(requests)]
        statuses = sorted(future.result().status_code for future in sent)
    assert statuses == [202, 202, 429, 429, 429, 429]
