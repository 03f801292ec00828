"""After any kill, acknowledged texts exist once; a missing dependency is reported immediately."""

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from local_stack.testing import RunningStack
from tests.programs import Program, running
from tests.waiting import wait_for


async def _send(url: str, acknowledged: list[str], stop: threading.Event) -> None:
    """Send texts, 16 at a time, until the API is gone or the test stops it."""

    async def send(client: httpx.AsyncClient, sender: int) -> None:
        for n in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
            try:
                answer = await client.post("/texts", json={"text": f"{sender}/{n}"})
            except httpx.TransportError:
                return
            if answer.status_code == 201:
                acknowledged.append(answer.json()["id"])
            else:
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"]

    async with httpx.AsyncClient(base_url=url) as client:
        await asyncio.gather(*(send(client, sender) for sender in range(16)))


@contextmanager
def _load(url: str) -> Iterator[list[str]]:
    """Send texts while the block runs; gives the ids of those that are acknowledged, 200 at the beginning."""
    acknowledged: list[str] = []
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(asyncio.run, _send(url, acknowledged, stop))
        try:
            wait_for(lambda: len(acknowledged) >= 200)
            yield acknowledged
        finally:
            stop.set()
        sending.result()


def _stored(database_url: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        return [str(id_) for (id_,) in connection.execute("select id from texts")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_acknowledged_texts_survive_the_end_of_the_api(
    ingestion: Program, database_url: str, number: signal.Signals
) -> None:
    with _load(ingestion.url) as acknowledged:
        ingestion.process.send_signal(number)
        ingestion.process.wait(120)
    stored = _stored(database_url)
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))


def test_a_lost_connection_is_replaced_unseen(client: httpx.Client, connection: psycopg.Connection) -> None:
    for number in range(3):
        assert client.post("/texts", json={"text": f"text {number}"}).status_code == 201
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'ingestion_api%'"
        )
    assert client.get("/queue").json()["pending"] == 3


def test_acknowledged_texts_survive_a_crash_of_postgres(own_postgres: RunningStack, tmp_path: Path) -> None:
    env = {"DATABASE_URL": own_postgres.database_url}
    with running("ingestion_api", env, tmp_path / "ingestion.log") as ingestion:
        with _load(ingestion.url) as acknowledged:
            own_postgres.kill("postgres")
            _wait_until_ready(ingestion.url)
        assert httpx.post(f"{ingestion.url}/texts", json={"text": "after"}).status_code == 201
    stored = _stored(own_postgres.database_url)
    assert set(acknowledged) <= set(stored)


def test_a_missing_or_frozen_database_is_said_at_once(own_postgres: RunningStack, tmp_path: Path) -> None:
    env = {"DATABASE_URL": own_postgres.database_url, "INGESTION_WAIT_SECONDS": "1"}
    with (
        running("ingestion_api", env, tmp_path / "ingestion.log") as ingestion,
        httpx.Client(base_url=ingestion.url, timeout=30) as client,
    ):
        assert client.post("/texts", json={"text": "before"}).status_code == 201
        for pid in _backends(own_postgres):
            os.kill(pid, signal.SIGSTOP)
        frozen = client.post("/texts", json={"text": "frozen"})
        ready = client.get("/readyz")
        for pid in _backends(own_postgres):
            os.kill(pid, signal.SIGCONT)
        own_postgres.stop_component("postgres")
        away = client.post("/texts", json={"text": "away"})
        read = client.get("/queue")
        bulk = client.post(
            "/texts/bulk", content='{"text": "a"}', headers={"Content-Type": "application/x-ndjson"}
        )
        alive = client.get("/healthz")
        own_postgres.start_component("postgres")
        _wait_until_ready(ingestion.url)
        assert client.post("/texts", json={"text": "back"}).status_code == 201
    assert ready.status_code == 503
    assert "database" in ready.json()["missing"]
    for answer in [frozen, away, read, bulk]:
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"]
    assert alive.status_code == 200


def _backends(stack: RunningStack) -> list[int]:

    postmaster = psutil.Process(stack.pids["postgres"])
    return [postmaster.pid, *(child.pid for child in postmaster.children(recursive=True))]


def _wait_until_ready(url: str) -> None:
    wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200)
