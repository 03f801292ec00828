"""One client cannot take everything: waits for changes, and turns of queries."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from load_testing.bench.replica_rows import make_replica
from tests.integration.serving_api.labelling import wait_until
from tests.programs import Program, running

# Two clients, without keys: their addresses.
_GREEDY, _MODEST = "127.0.0.1", "127.0.0.2"
_ROWS = 60_000
_QUERIES = 60


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("shares")
    make_replica(folder / "serving" / "replica.duckdb", _ROWS)
    environment = {
        # No server listens there: the replica serves its data.
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "DATA_DIR": str(folder),
        "SERVING_QUERY_THREADS": "1",
        "SERVING_QUERY_SECONDS": "120",
        "SERVING_SEARCH_INDEX": "false",  # each search reads all texts
        "SERVING_CHANGES_CLIENTS": "4",
    }
    with running("serving_api", environment, folder / "log", "/readyz") as program:
        wait_until(lambda: httpx.get(f"{program.url}/texts").is_success)
        yield program


def _client(program: Program, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=program.url, transport=transport, timeout=120)


@contextmanager
def _held(program: Program, path: str, accept: str = "*/*") -> Iterator[bytes]:
    """Request a long response as the greedy client, and return its beginning."""
    target = urlsplit(program.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that it is not all sent at once
        client.settimeout(60)
        client.connect((target.hostname, target.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
        yield client.recv(1000)


def test_one_client_has_half_of_the_places(program: Program) -> None:
    path, accept = "/changes", "text/event-stream"
    with _client(program, _GREEDY) as greedy, _client(program, _MODEST) as modest:
        with ExitStack() as held:
            for _ in range(2):
                assert held.enter_context(_held(program, path, accept)).startswith(b"HTTP/1.1 200")
            refused = greedy.get(path, headers={"Accept": accept})
            assert (refused.status_code, refused.json()["code"]) == (429, "share_exceeded")
            assert int(refused.headers["retry-after"]) > 0
            with modest.stream("GET", path, headers={"Accept": accept}) as answer:
                assert answer.status_code == 200
                assert next(answer.iter_bytes())
        # Those that were left are free again.
        wait_until(lambda: _status(greedy, path, accept) == 200)


def _status(client: httpx.Client, path: str, accept: str) -> int:
    with client.stream("GET", path, headers={"Accept": accept}) as answer:
        return answer.status_code


def test_a_client_with_many_slow_queries_delays_another_one_s_by_few(program: Program) -> None:
    answered, first = [], threading.Event()

    def ask(number: int) -> None:
        with _client(program, _GREEDY) as client:
            assert client.get("/texts", params={"q": f"no text has this {number}"}).status_code == 200
        answered.append(number)
        first.set()

    with ThreadPoolExecutor(_QUERIES) as threads, _client(program, _MODEST) as modest:
        asking = [threads.submit(ask, number) for number in range(_QUERIES)]
        assert first.wait(120)
        before = len(answered)
        assert modest.get("/texts", params={"limit": 7}).status_code == 200
        overtaking = len(answered) - before
        for one in asking:
            one.result()
    # First come, first served would have it wait for all of them.
    assert overtaking < _QUERIES / 4


def test_who_asks_for_too_much_at_once_is_told_so(program: Program) -> None:
    """128 of the 256 queries that may wait."""

    def ask(number: int) -> int:
        with _client(program, _GREEDY) as client:
            return client.get("/texts", params={"q": f"nor this {number}"}).status_code

    with ThreadPoolExecutor(200) as threads:
        statuses = list(threads.map(ask, range(200)))
    assert set(statuses) == {200, 429}
