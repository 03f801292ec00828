"""Exports that are cut off, on either side, and exports while labels change."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import duckdb
import httpx
import psutil
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from serving_api.exports import service
from serving_api.exports.repository import read_batches
from serving_api.replica.replica import Replica
from tests.integration.serving_api.exporting import READ
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.integration.serving_api.served import served
from tests.programs import Program, running


def add_rows(labeller: Labeller, rows: int, source: str = "many") -> None:
    """Store labelled texts of 1 kB, more than sockets keep."""
    with labeller.engine.begin() as connection:
        connection.execute(
            text(
                "with t as (insert into texts (id, dataset, text, source) "
                "select gen_random_uuid(), 'toxicity', repeat(md5(n::text), 32), :source "
                "from generate_series(1, :rows) n returning id) "
                "insert into labels (text_id, dataset, label, status, agreement, votes, annotations, labelled_at) "
                "select id, 'toxicity', 'toxic', 'labelled', 1, '{\"toxic\": 1}', 1, now() from t"
            ),
            {"rows": rows, "source": source},
        )


@contextmanager
def begun(url: str, path: str = "/export.ndjson") -> Iterator[socket.socket]:
    """Request an export and read its first bytes."""
    target = urlsplit(url)
    with socket.create_connection((target.hostname, target.port or 80), timeout=20) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        yield client


def ended(url: str, result: str) -> float:
    """Return how many exports ended so."""
    name = f'serving_exports_total{{format="ndjson",result="{result}"}} '
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return float(next((line.removeprefix(name) for line in lines if line.startswith(name)), 0))


def is_connected(program: Program, client: socket.socket) -> bool:
    """Whether the program still holds its end of the connection, with unsent bytes."""
    port = client.getsockname()[1]
    held = psutil.Process(program.process.pid).net_connections("tcp4")
    return any(connection.raddr and connection.raddr.port == port for connection in held)


def take_all(client: socket.socket) -> bytes:
    """Return what the system still holds for a client."""
    parts = []
    while part := client.recv(2**20):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(tmp_path),
        "SERVING_EXPORTS": "1",
        "SERVING_EXPORT_IDLE_SECONDS": "2",
    }


@pytest.mark.soak
def test_who_leaves_or_stops_or_is_killed_costs_nothing(
    labeller: Labeller, environment: dict[str, str], tmp_path: Path
) -> None:
    rows = 40_000
    add_rows(labeller, rows)
    with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
        url = program.url
        with begun(url):
            assert httpx.get(f"{url}/export.csv").status_code == 200
            assert httpx.get(f"{url}/texts?limit=1").status_code == 200
        wait_until(lambda: ended(url, "left") == 1)
        with begun(url) as idle:
            wait_until(lambda: ended(url, "idle") == 1)
            wait_until(lambda: not is_connected(program, idle))
            assert len(take_all(idle)) < rows * 1000
        assert len(READ["ndjson"](httpx.get(f"{url}/export.ndjson").content)) == rows
        with httpx.stream("GET", f"{url}/export.ndjson") as answer:
            chunks = answer.iter_raw()
            next(chunks)
            program.kill()
            with pytest.raises(httpx.TransportError):
                list(chunks)
    with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
        assert len(READ["parquet"](httpx.get(f"{program.url}/export.parquet").content)) == rows
    log = (tmp_path / "log").read_text()
    assert "replica.damaged" not in log
    assert "Traceback" not in log


def test_a_version_stays_to_the_end_while_labels_and_the_replica_change(
    client: TestClient, labeller: Labeller, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [labeller.add_text(f"{number} " + "x" * 30_000) for number in range(600)]
    labeller.annotate({id_: {"ada": "toxic"} for id_ in many})
    labeller.wait_for(replica)
    old_version = replica.loaded().version

    def changing(*arguments: Any) -> Iterator[Any]:
        batches = read_batches(*arguments)
        yield next(batches)
        monkeypatch.undo()
        change(labeller, replica, many)
        yield from batches

    monkeypatch.setattr(service, "read_batches", changing)
    answer = client.get("/export.ndjson")
    assert int(answer.headers["x-replica-version"]) == old_version
    rows = READ["ndjson"](answer.content)
    assert Counter(row["annotations"] for row in rows) == {1: 600}
    assert {UUID(row["id"]) for row in rows} == set(many)
    now = READ["ndjson"](client.get("/export.ndjson").content)
    assert Counter(row["annotations"] for row in now) == {2: 300, 1: 200}


def change(labeller: Labeller, replica: Replica, many: list[UUID]) -> None:
    """Edit, withdraw, and let the replica be rebuilt."""
    labeller.annotate({id_: {"ada": "toxic", "bob": "toxic"} for id_ in many[:300]})
    labeller.annotate({id_: {} for id_ in many[300:400]})
    labeller.wait_for(replica)
    replica.state = None
    wait_until(lambda: replica.state is not None)
    assert replica.rows == 500


@pytest.mark.parametrize("name", READ)
def test_what_fails_on_the_way_is_a_problem_and_leaves_no_file(
    client: TestClient, labeller: Labeller, replica: Replica, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.add_label("one")
    labeller.wait_for(replica)

    def failing(*arguments: Any) -> Iterator[Any]:
        for batch in read_batches(*arguments):
            yield from [batch] * 300  # more than a group of rows
        raise duckdb.IOException("the disk is gone")

    monkeypatch.setattr("serving_api.exports.export_files.GROUP_ROWS", 100)
    monkeypatch.setattr(service, "read_batches", failing)
    answer = client.get(f"/export.{name}")
    assert (answer.status_code, answer.json()["code"]) == (503, "export_failed")
    assert list((replica.folder.path / "exports").iterdir()) == []
    monkeypatch.undo()
    assert len(READ[name](client.get(f"/export.{name}").content)) == 1


def test_one_client_writes_half_of_the_exports_that_may_be_written_at_once(
    client: TestClient, labeller: Labeller, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.add_label("one")
    labeller.wait_for(replica)
    go_on = threading.Event()

    def waiting(*arguments: Any) -> Iterator[Any]:
        assert go_on.wait(20)
        yield from read_batches(*arguments)

    monkeypatch.setattr(service, "read_batches", waiting)
    with served(client.app, lifespan="off") as url, ThreadPoolExecutor(3) as threads:
        same = [threads.submit(httpx.get, f"{url}/export.ndjson") for _ in range(2)]  # one file for both
        other = threads.submit(httpx.get, f"{url}/export.csv")
        wait_until(lambda: len(list((replica.folder.path / "exports").iterdir())) == 2)
        refused = httpx.get(f"{url}/export.parquet")
        assert (refused.status_code, refused.json()["code"]) == (429, "share_exceeded")
        assert refused.headers["Retry-After"]
        go_on.set()
        assert {one.result().status_code for one in (*same, other)} == {200}
        assert same[0].result().headers["etag"] == same[1].result().headers["etag"]
        assert httpx.get(f"{url}/export.parquet").status_code == 200


@pytest.mark.parametrize("name", READ)
def test_what_fails_at_once_is_a_problem(
    client: TestClient, labeller: Labeller, replica: Replica, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.wait_for(replica)

    def failing(*_: Any) -> Iterator[Any]:
        raise duckdb.OutOfMemoryException("no memory")

    monkeypatch.setattr(service, "read_batches", failing)
    for _ in range(5):  # more than there are slots
        answer = client.get(f"/export.{name}")
        assert (answer.status_code, answer.json()["code"]) == (503, "too_busy")
        assert answer.json()["detail"] == "Memory is short."


@pytest.mark.soak
@pytest.mark.parametrize("name", READ)
def test_memory_does_not_grow_with_the_rows(
    labeller: Labeller, environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    add_rows(labeller, 20_000, "few")
    add_rows(labeller, 400_000)
    with running("serving_api", environment, tmp_path / "log") as program:
        wait_until(lambda: httpx.get(f"{program.url}/stats").json().get("total") == 420_000)
        few = peak_bytes(program.url, program.process.pid, f"/export.{name}?source=few")
        many = peak_bytes(program.url, program.process.pid, f"/export.{name}")
    # DuckDB caches the read parts of its file, up to REPLICA_MEMORY_LIMIT.
    cached = sum(file.stat().st_size for file in (tmp_path / "serving").iterdir())
    assert many - few < cached + 200 * 2**20


def peak_bytes(url: str, pid: int, path: str) -> int:
    """Return the peak resident memory while a client reads an export, slowly at first."""
    peak, process = 0, psutil.Process(pid)
    with httpx.stream("GET", f"{url}{path}", timeout=60) as answer:
        for number, _ in enumerate(answer.iter_raw(2**20)):
            time.sleep(0.05 if number < 20 else 0)
            peak = max(peak, process.memory_info().rss)
    return peak
