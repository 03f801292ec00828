"""Hostile requests for FUZZ_MINUTES: none keeps an API from answering others, none gets a 500.

/healthz is asked all the while. FUZZ_SEED repeats the requests of a run. FUZZ_PAUSE_SECONDS makes each client wait
between requests, so that a long run leaves the machine to others.
"""

import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.security.conftest import Guarded
from tests.integration.security.hostile_requests import Requests
from tests.programs import Program, free_port, run
from tests.waiting import wait_for

CLIENTS = 3
STALL_SECONDS = 1.0
PROBE_SECONDS = 0.05
ANSWER_SECONDS = 60
PAUSE_SECONDS = float(os.environ.get("FUZZ_PAUSE_SECONDS", "0"))


class _Peer(BaseHTTPRequestHandler):
    """Responds immediately: its delay shows the load of the machine."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _serve_peer(port: int) -> None:
    ThreadingHTTPServer(("127.0.0.1", port), _Peer).serve_forever()


@contextmanager
def peer() -> Iterator[str]:
    """Run a server that does nothing, in a separate process."""
    port = free_port()
    process = get_context("spawn").Process(target=_serve_peer, args=(port,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _is_up(url))
        yield url
    finally:
        process.kill()
        process.join()


def _is_up(url: str) -> bool:
    with httpx.Client() as client:
        return _seconds(client, url) is not None


def _seconds(client: httpx.Client, url: str) -> float | None:
    """Return how long an answer took; None if there was none."""
    started = time.perf_counter()
    try:
        client.get(url + "/healthz", timeout=ANSWER_SECONDS)
    except httpx.TransportError:
        return None
    return time.perf_counter() - started


class Watch(threading.Thread):
    """Asks a program and the peer in turn; notes each answer that was late although the peer's was not."""

    def __init__(self, program: Program, peer_url: str, stop: threading.Event) -> None:
        super().__init__()
        self.stalls: list[tuple[float, float]] = []
        self.slowest = 0.0
        self._program, self._peer_url, self._stop_it = program, peer_url, stop

    def run(self) -> None:
        with httpx.Client() as client, httpx.Client() as peer_client:
            while not self._stop_it.wait(PROBE_SECONDS):
                before = _seconds(peer_client, self._peer_url)
                taken = _seconds(client, self._program.url)
                after = _seconds(peer_client, self._peer_url)
                if taken is None or before is None or after is None:
                    continue  # a connection that was idle too long; a dead program is noticed at the end
                self.slowest = max(self.slowest, taken)
                if taken - max(before, after) > STALL_SECONDS:
                    self.stalls.append((time.time(), taken))


class Client(threading.Thread):
    """Sends hostile requests one after another, and counts the answers by status."""

    def __init__(self, program: Program, requests: Requests, seed: int, ends_at: float) -> None:
        super().__init__()
        self.statuses: Counter[str] = Counter()
        self.bad: list[tuple[bytes, bytes]] = []
        self.recent: list[tuple[float, float, bytes]] = []  # when it began, how long it took, its first bytes
        self._address = ("127.0.0.1", urlsplit(program.url).port or 0)
        self._requests, self._random, self._ends_at = requests, random.Random(seed), ends_at  # noqa: S311

    def run(self) -> None:
        while time.monotonic() < self._ends_at:
            request = self._requests.make(self._random)
            began = time.time()
            answer = self._send(request)
            status = answer[9:12].decode("ascii", "replace") if answer else "none"
            self.statuses[status] += 1
            self.recent = [*self.recent[-3000:], (began, time.time() - began, request[:1000])]
            if status == "500" or b"Traceback" in answer:
                self.bad.append((request[:2000], answer[:2000]))
            time.sleep(PAUSE_SECONDS)

    def _send(self, request: bytes) -> bytes:
        answer = b""
        try:
            with socket.create_connection(self._address, timeout=ANSWER_SECONDS) as raw:
                raw.sendall(request)
                while len(answer) < 1_000_000 and (part := raw.recv(65536)):
                    answer += part
        except OSError:
            pass  # it was refused before all of it was sent
        return answer


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_no_request_stops_the_others(guarded: Guarded, tmp_path: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED", random.randrange(2**32)))  # noqa: S311
    minutes = float(os.environ.get("FUZZ_MINUTES", "1"))
    arguments = ("demo-data", "--texts", "20000", "--annotators", "3")
    made = run("cli", *arguments, env={"DATABASE_URL": guarded.database_url, "DATA_DIR": str(tmp_path)})
    assert made.returncode == 0, made.stderr
    ends_at = time.monotonic() + 60 * minutes
    stop = threading.Event()
    programs = {"ingestion": guarded.ingestion, "serving": guarded.serving}
    with ExitStack() as stack:
        peer_url = stack.enter_context(peer())
        watches = {name: Watch(program, peer_url, stop) for name, program in programs.items()}
        clients = [
            Client(
                program, Requests(_document(program), guarded.keys["admin"]), seed + 10 * n + len(name), ends_at
            )
            for n in range(CLIENTS)
            for name, program in programs.items()
        ]
        for thread in (*watches.values(), *clients):
            thread.start()
        for client in clients:
            client.join()
        stop.set()
        for watch in watches.values():
            watch.join()
    statuses = sum((client.statuses for client in clients), Counter[str]())
    print(f"fuzz: seed {seed}, {statuses.total()} requests, {json.dumps(dict(sorted(statuses.items())))}")  # noqa: T201
    print("fuzz: slowest /healthz:", {name: round(watch.slowest, 3) for name, watch in watches.items()})  # noqa: T201
    for name, watch in watches.items():
        during = [one for at, taken in watch.stalls[:3] for one in _under_way(clients, at - taken, at)]
        assert not watch.stalls, (seed, name, watch.stalls, during)
    assert not [bad for client in clients for bad in client.bad]
    for program in programs.values():
        assert httpx.get(program.url + "/healthz", timeout=ANSWER_SECONDS).status_code == 200
        assert "Traceback" not in program.log.read_text()


def _document(program: Program) -> dict[str, object]:
    document: dict[str, object] = httpx.get(program.url + "/openapi.json").json()
    return document


def _under_way(clients: list[Client], start: float, end: float) -> list[bytes]:
    """Return the requests that were under way in a stretch of time."""
    return [
        request
        for client in clients
        for began, taken, request in client.recent
        if began < end and began + taken > start
    ]
