"""After a kill while an import is received or run, acknowledged rows exist and count once."""

import io
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet

from local_stack.testing import RunningStack
from tests.integration.ingestion_api.importing import (
    NDJSON,
    append,
    count_texts,
    counts,
    ended,
    lines,
    open_import,
    stored_bytes,
)
from tests.programs import Program, running
from tests.waiting import wait_for

PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
ROWS = 120_000
ENV = {"INGESTION_IMPORT_LEASE_SECONDS": "3", "INGESTION_BULK_CHUNK_ROWS": "2000"}


def _parquet(count: int) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table({"text": [f"text {n}" for n in range(count)]}), file)
    return file.getvalue()


def _client(program: Program) -> httpx.Client:
    return httpx.Client(base_url=program.url, timeout=30)


def _wait_for_rows(client: httpx.Client, path: str) -> None:
    wait_for(lambda: client.get(path).json()["progress"]["rows"] > 0)
    assert client.get(path).json()["state"] == "running"


def _processes(program: Program) -> list[psutil.Process]:
    """The processes that the API runs imports in."""
    return psutil.Process(program.process.pid).children(recursive=True)


@pytest.mark.soak
def test_a_body_that_an_api_was_receiving_is_continued(database_url: str, tmp_path: Path) -> None:
    env = ENV | {"DATABASE_URL": database_url}
    body = lines(ROWS)
    under_way = threading.Event()

    def slow_body() -> Iterator[bytes]:
        yield body[:2_500_000]
        under_way.wait()

    with running("ingestion_api", env, tmp_path / "log") as program, _client(program) as client:
        path = open_import(client)
        sending = threading.Thread(target=lambda: _send_until_it_dies(program, path, slow_body()))
        sending.start()
        wait_for(lambda: stored_bytes(client, path) >= 2 * 1024 * 1024)
        acknowledged = stored_bytes(client, path)
        program.kill()
        under_way.set()
        sending.join()
    with running("ingestion_api", env, tmp_path / "log") as program, _client(program) as client:
        offset = stored_bytes(client, path)
        assert offset >= acknowledged
        assert append(client, path, offset, body[offset:], "?1").status_code == 202
        assert counts(ended(client, path)) == (ROWS, ROWS, 0, 0)
    assert count_texts(database_url) == ROWS


def _send_until_it_dies(program: Program, path: str, body: Iterator[bytes]) -> None:
    with _client(program) as client, pytest.raises(httpx.TransportError):
        append(client, path, 0, body, "?0")


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    ("headers", "query", "body"),
    [
        (NDJSON, "", lines(ROWS)),
        (PARQUET, "", _parquet(ROWS)),
        (NDJSON, "?on_error=abort", lines(ROWS)),
    ],
    ids=["ndjson", "parquet", "abort"],
)
def test_an_import_goes_on_after_the_end_of_its_api(
    database_url: str, tmp_path: Path, number: signal.Signals, headers: dict[str, str], query: str, body: bytes
) -> None:
    env = ENV | {"DATABASE_URL": database_url}
    with running("ingestion_api", env, tmp_path / "log") as program, _client(program) as client:
        path = client.post(f"/imports{query}", content=body, headers=headers).headers["location"]
        _wait_for_rows(client, path)
        program.process.send_signal(number)
        program.process.wait(60)
    assert _row(database_url)["crashes"] == 0
    if number == signal.SIGTERM:  # it was put back, and need not wait for its lease
        assert _row(database_url)["state"] == "waiting"
    with running("ingestion_api", env, tmp_path / "log") as program, _client(program) as client:
        result = ended(client, path, 120)
    assert (result["state"], counts(result)) == ("done", (ROWS, ROWS, 0, 0))
    assert count_texts(database_url) == ROWS


def _row(database_url: str) -> dict[str, Any]:
    with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as connection:
        row = connection.execute("select * from imports").fetchone()
    assert row
    return row


@pytest.mark.soak
def test_of_two_apis_one_runs_an_import_and_the_other_goes_on(database_url: str, tmp_path: Path) -> None:
    env = ENV | {"DATABASE_URL": database_url}
    with ExitStack() as stack:
        programs = [
            stack.enter_context(running("ingestion_api", env, tmp_path / f"log{number}")) for number in range(2)
        ]
        clients = [stack.enter_context(_client(program)) for program in programs]
        path = clients[0].post("/imports", content=lines(ROWS), headers=NDJSON).headers["location"]
        _wait_for_rows(clients[1], path)
        busy = [number for number, program in enumerate(programs) if _processes(program)]
        assert len(busy) == 1
        programs[busy[0]].kill()
        result = ended(clients[1 - busy[0]], path, 120)
    assert (result["state"], counts(result)) == ("done", (ROWS, ROWS, 0, 0))
    assert count_texts(database_url) == ROWS


@pytest.mark.soak
def test_an_import_goes_on_after_the_end_of_postgres(own_postgres: RunningStack, tmp_path: Path) -> None:
    env = ENV | {"DATABASE_URL": own_postgres.database_url}
    with running("ingestion_api", env, tmp_path / "log") as program, _client(program) as client:
        path = client.post("/imports", content=lines(ROWS), headers=NDJSON).headers["location"]
        _wait_for_rows(client, path)
        own_postgres.kill("postgres")
        wait_for(lambda: client.get("/readyz").status_code == 200)
        own_postgres.stop_component("postgres")
        away = client.post("/imports", content=b"x", headers=NDJSON)
        own_postgres.start_component("postgres")
        wait_for(lambda: client.get("/readyz").status_code == 200)
        result = ended(client, path, 120)
    assert (away.status_code, "retry-after" in away.headers) == (503, True)
    assert (result["state"], counts(result)) == ("done", (ROWS, ROWS, 0, 0))
    assert count_texts(own_postgres.database_url) == ROWS


@pytest.mark.soak
def test_a_process_that_is_killed_once_costs_nothing(database_url: str, tmp_path: Path) -> None:
    env = ENV | {"DATABASE_URL": database_url}
    with running("ingestion_api", env, tmp_path / "log") as program, _client(program) as client:
        path = client.post("/imports", content=_parquet(ROWS), headers=PARQUET).headers["location"]
        _wait_for_rows(client, path)
        for process in _processes(program):
            process.kill()
        result = ended(client, path, 120)
    assert (result["state"], counts(result)) == ("done", (ROWS, ROWS, 0, 0))
    assert count_texts(database_url) == ROWS


@pytest.mark.soak
def test_an_import_that_kills_every_process_is_given_up(database_url: str, tmp_path: Path) -> None:
    env = ENV | {"DATABASE_URL": database_url}
    killed: set[int] = set()
    with running("ingestion_api", env, tmp_path / "log") as program, _client(program) as client:
        path = client.post("/imports?on_error=abort", content=lines(ROWS), headers=NDJSON).headers["location"]

        def is_over() -> bool:
            for process in _processes(program):
                process.kill()
                killed.add(process.pid)
            return bool(client.get(path).json()["state"] == "failed")

        wait_for(is_over)
        result = client.get(path).json()
        after = client.post("/imports", content=lines(1), headers=NDJSON).headers["location"]
        assert ended(client, after)["accepted"] == 1
    assert (result["problem"]["code"], counts(result)[1:]) == ("import_crashed", (0, 0, 0))
    assert len(killed) == 3
