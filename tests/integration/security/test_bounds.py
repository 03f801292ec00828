"""Who sends endless heads, sends slowly, or opens many connections is ended; others do not notice."""

import time
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.integration.security.conftest import CONNECTIONS, HEAD_SECONDS, Guarded, connect, exchange, receive
from tests.programs import Program
from tests.waiting import wait_for

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
BOTH = pytest.mark.parametrize("api", ["ingestion", "serving"])


def alive(program: Program) -> bool:
    return httpx.get(f"{program.url}/healthz", timeout=30).status_code == 200


@BOTH
@pytest.mark.parametrize(
    "head",
    [
        GET + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        GET + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 100) for n in range(700)) + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        GET + b"X-Endless: " + b"a" * 70_000,
        GET + b"a" * 70_000,
    ],
    ids=["long header", "many headers", "long address", "endless header", "endless name"],
)
def test_a_head_over_the_bound_is_refused(guarded: Guarded, api: str, head: bytes) -> None:
    answer = exchange(getattr(guarded, api), head)
    assert answer.startswith(b"HTTP/1.1 431 "), answer[:200]
    assert b'"code": "head_too_large"' in answer
    assert b"content-type: application/problem+json" in answer


def test_a_head_below_the_bound_is_taken(guarded: Guarded) -> None:
    answer = exchange(guarded.ingestion, GET + b"Connection: close\r\nX-Long: " + b"a" * 60_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_endless_headers_behind_a_body_are_refused(guarded: Guarded) -> None:
    head = b"POST /webhooks/argilla HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    with connect(guarded.ingestion) as raw:
        raw.sendall(head)
        try:
            for n in range(20_000):
                raw.sendall(b"X-%d: %b\r\n" % (n, b"a" * 100))
        except (ConnectionResetError, BrokenPipeError):
            return
        assert receive(raw).count(b"HTTP/1.1 ") == 1  # it was answered before, and what came was thrown away


def test_endless_heads_take_no_memory(guarded: Guarded) -> None:
    process = psutil.Process(guarded.ingestion.process.pid)
    before = process.memory_info().rss
    with ExitStack() as stack:
        for _ in range(30):
            raw = stack.enter_context(connect(guarded.ingestion))
            try:
                for _ in range(32):
                    raw.sendall(b"a" * 65536)
            except (ConnectionResetError, BrokenPipeError):
                pass
        grown = process.memory_info().rss - before
    assert grown < 30 * 1024 * 1024  # of 60 MiB that were sent
    assert alive(guarded.ingestion)


@BOTH
def test_who_sends_a_head_byte_by_byte_is_ended(guarded: Guarded, api: str) -> None:
    program: Program = getattr(guarded, api)
    with ExitStack() as stack:
        started = time.monotonic()
        slow = [stack.enter_context(connect(program)) for _ in range(20)]
        answers = [b""] * len(slow)
        for raw in slow:
            raw.sendall(GET + b"X-Slow: ")
            raw.setblocking(False)
        ended = [False] * len(slow)

        def trickle() -> bool:
            for number, raw in enumerate(slow):
                if not ended[number]:
                    try:
                        raw.send(b"X")
                        part = raw.recv(65536)
                        answers[number] += part
                        ended[number] = not part
                    except BlockingIOError:
                        pass
                    except (ConnectionResetError, BrokenPipeError):
                        ended[number] = True
            return all(ended) or all(answers)

        wait_for(trickle)
        assert time.monotonic() - started >= HEAD_SECONDS
        assert all(not one or one.startswith(b"HTTP/1.1 408 ") for one in answers)
        assert any(answers)
        assert alive(program)


@BOTH
def test_who_says_nothing_is_ended(guarded: Guarded, api: str) -> None:
    answer = exchange(getattr(guarded, api), b"")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code": "request_timeout"' in answer


def test_who_stops_in_a_body_is_ended(guarded: Guarded) -> None:
    key = f"Authorization: Bearer {guarded.keys['ingest']}\r\n".encode()
    for path, kind in ((b"/texts", b"application/json"), (b"/texts/bulk", b"application/x-ndjson")):
        head = b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Type: %b\r\nContent-Length: 99\r\n\r\n" % (
            path,
            key,
            kind,
        )
        answer = exchange(guarded.ingestion, head + b'{"text": "half')
        assert answer.startswith(b"HTTP/1.1 408 "), answer
    queue = httpx.get(f"{guarded.ingestion.url}/queue", headers=guarded.headers("ingest"))
    assert queue.status_code == 200


def test_a_body_that_comes_slowly_but_comes_is_taken(guarded: Guarded) -> None:
    body = b'{"text": "slow but sure"}'
    key = f"Authorization: Bearer {guarded.keys['ingest']}\r\n".encode()
    head = b"POST /texts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%bContent-Type: application/json\r\n" % key

    def is_taken() -> bool:
        with connect(guarded.ingestion) as raw:
            raw.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
            try:
                for number in range(len(body)):
                    raw.sendall(body[number : number + 1])
                    time.sleep(1.5 / len(body))  # longer than a pause may be, all together
            except (ConnectionResetError, BrokenPipeError):
                return False
            return receive(raw).startswith(b"HTTP/1.1 201 ")

    wait_for(is_taken)  # on a busy machine a single pause may be too long


def test_connections_over_their_number_are_refused(guarded: Guarded) -> None:
    program = guarded.serving

    def refused() -> bool:
        with ExitStack() as stack:
            many = [stack.enter_context(connect(program)) for _ in range(CONNECTIONS + 20)]
            return any(b'"too_many_connections"' in receive(raw) for raw in reversed(many))

    wait_for(refused)  # on a busy machine the first are ended before the last are there
    wait_for(lambda: alive(program))
