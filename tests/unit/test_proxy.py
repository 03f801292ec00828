"""The tests' own proxy: each fault does what its name says."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from tests.proxy import DROP, LOSE_ANSWER, Fault, Proxy, running_proxy
from tests.waiting import wait_for

_SENT = b"x" * 500_000


class _Echo(BaseHTTPRequestHandler):
    received: list[int]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(len(body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def received() -> list[int]:
    return []


@pytest.fixture
def proxy(received: list[int]) -> Iterator[Proxy]:
    handler = type("Echo", (_Echo,), {"received": received})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with running_proxy(server.server_port) as running:
                yield running
        finally:
            server.shutdown()
            thread.join()


def _put(proxy: Proxy, timeout_seconds: float = 30) -> bytes:
    return httpx.put(proxy.url, content=_SENT, timeout=timeout_seconds).content


def test_without_a_fault_all_goes_through(proxy: Proxy, received: list[int]) -> None:
    assert _put(proxy) == _SENT
    assert received == [len(_SENT)]


def test_a_dropped_call_does_not_arrive(proxy: Proxy, received: list[int]) -> None:
    proxy.rule = lambda _head: DROP
    with pytest.raises(httpx.TransportError):
        _put(proxy)
    assert received == []


@pytest.mark.parametrize("fault", [LOSE_ANSWER, Fault(answer_bytes=70_000)], ids=["lost", "cut"])
def test_a_call_whose_answer_is_cut_has_arrived(proxy: Proxy, received: list[int], fault: Fault) -> None:
    proxy.rule = lambda _head: fault
    with pytest.raises(httpx.TransportError):
        _put(proxy)
    assert received == [len(_SENT)]


def test_a_delayed_call_arrives_after_its_client_has_gone(proxy: Proxy, received: list[int]) -> None:
    proxy.rule = lambda _head: Fault(delay_seconds=1)
    with pytest.raises(httpx.TimeoutException):
        httpx.put(proxy.url, content=b"x" * 1000, timeout=httpx.Timeout(60, read=0.2))
    wait_for(lambda: received == [1000])
