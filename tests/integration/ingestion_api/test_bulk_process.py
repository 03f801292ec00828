"""Bulk bodies are stored by processes of their own: what happens when one of the two ends."""

import json
import threading
from collections.abc import Iterator

import httpx
import psutil
import psycopg

from tests.programs import Program
from tests.waiting import wait_for

NDJSON = {"Content-Type": "application/x-ndjson"}


class _Upload:
    """An upload that has stored a part and continues until it is released."""

    def __init__(self, url: str) -> None:
        self._let_go = threading.Event()
        self._thread = threading.Thread(target=self._send, args=(f"{url}/texts/bulk",))
        self.answer: httpx.Response | None = None
        self._thread.start()

    def _send(self, url: str) -> None:
        def body() -> Iterator[bytes]:
            for n in range(12_000):
                yield json.dumps({"text": f"text {n}"}).encode() + b"\n"
            self._let_go.wait(30)
            yield b'{"text": "the last one"}\n'

        try:
            self.answer = httpx.post(url, content=body(), headers=NDJSON, timeout=30)
        except httpx.TransportError:
            self.answer = None

    def end(self) -> httpx.Response | None:
        self._let_go.set()
        self._thread.join()
        return self.answer


def _stored(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select count(*) from texts").fetchone()
        assert row is not None
        count: int = row[0]
    return count


def _worker(ingestion: Program) -> psutil.Process:
    (worker,) = psutil.Process(ingestion.process.pid).children()
    return worker


def test_a_killed_process_costs_its_own_upload_only(ingestion: Program, database_url: str) -> None:
    upload = _Upload(ingestion.url)
    wait_for(lambda: _stored(database_url) >= 5000)
    _worker(ingestion).kill()
    answer = upload.end()
    assert answer is not None
    assert (answer.status_code, answer.json()["code"]) == (503, "bulk_crashed")
    assert answer.headers["retry-after"]
    again = httpx.post(f"{ingestion.url}/texts/bulk", content=b'{"text": "a"}\n', headers=NDJSON, timeout=30)
    assert again.json()["accepted"] == 1


def test_no_process_outlives_the_api(ingestion: Program, database_url: str) -> None:
    upload = _Upload(ingestion.url)
    wait_for(lambda: _stored(database_url) >= 5000)
    worker = _worker(ingestion)
    ingestion.kill()
    assert upload.end() is None
    worker.wait(20)


def test_single_texts_are_stored_beside_a_bulk_upload(ingestion: Program, database_url: str) -> None:
    upload = _Upload(ingestion.url)
    wait_for(lambda: _stored(database_url) >= 5000)
    assert httpx.post(f"{ingestion.url}/texts", json={"text": "beside"}).status_code == 201
    answer = upload.end()
    assert answer is not None
    assert answer.json()["received"] == 12_001
