"""Tests of uploader.argilla.client, and of Argilla's client with one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from uploader.argilla.client import Argilla, Circuit, CircuitState
from uploader.argilla.errors import Fault, Stopped, Unreachable

_STATES = [CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN]


class _Server:
    """Responds with `status`, or not at all if that is None; records the requests."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.status: int | None = None
        self.asked: list[str] = []
        self.circuit = Circuit(15, lambda: self.now)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        self.asked.append(request.url.path)
        if self.status is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(self.status, json={})

    def run(self, work: Callable[[Argilla], Awaitable[Any]]) -> Any:
        async def with_client() -> Any:
            transport = httpx.MockTransport(self.answer)
            async with httpx.AsyncClient(base_url="http://argilla/", transport=transport) as http:
                return await work(Argilla(http, self.circuit))

        return asyncio.run(with_client())

    def state(self) -> CircuitState:
        return self.circuit.state

    def call(self) -> None:
        self.run(lambda argilla: argilla.call("GET", "datasets"))

    def fails_with(self, kind: type[Exception]) -> None:
        with pytest.raises(kind):
            self.call()


def test_while_it_is_open_nothing_is_called() -> None:
    server = _Server()
    for _ in range(5):
        server.fails_with(Unreachable)
    assert server.asked == ["/datasets"]
    assert server.state() == CircuitState.OPEN


def test_one_small_call_decides_for_all_that_wait() -> None:
    server = _Server()
    server.fails_with(Unreachable)
    server.now += 1
    server.status, server.asked = 200, []

    async def many(argilla: Argilla) -> None:
        await asyncio.gather(*(argilla.call("GET", "datasets") for _ in range(10)))

    server.run(many)
    assert server.asked == ["/me"] + ["/datasets"] * 10
    assert server.state() == CircuitState.CLOSED


def test_a_failed_small_call_opens_it_for_longer_and_longer() -> None:
    server = _Server()
    server.fails_with(Unreachable)
    for longest in (1, 2, 4, 8, 15, 15):
        server.now += longest
        server.asked = []
        server.fails_with(Unreachable)
        assert server.asked == ["/me"]
        server.now += longest / 2 - 0.01  # the next pause is at least as long as half of twice this one
        server.fails_with(Unreachable)
        assert server.asked == ["/me"]


@pytest.mark.parametrize(("status", "kind"), [(401, Stopped), (403, Stopped), (404, Stopped)])
def test_what_concerns_one_dataset_opens_nothing(status: int, kind: type[Exception]) -> None:
    server = _Server()
    server.status = status
    server.fails_with(kind)
    assert server.state() == CircuitState.CLOSED


def test_a_fault_is_doubted_once_and_the_next_call_made_when_argilla_answers() -> None:
    server = _Server()
    server.status = 500
    server.fails_with(Fault)
    assert server.state() == CircuitState.HALF_OPEN
    server.status, server.asked = 200, []
    server.call()
    assert server.asked == ["/me", "/datasets"]
    assert server.state() == CircuitState.CLOSED


def test_a_fault_of_everything_opens_it() -> None:
    server = _Server()
    server.status = 500
    server.fails_with(Fault)
    server.fails_with(Unreachable)
    assert server.state() == CircuitState.OPEN


def test_a_wrong_key_is_an_answer() -> None:
    server = _Server()
    server.fails_with(Unreachable)
    server.now += 1
    server.status = 401
    server.fails_with(Stopped)
    assert server.state() == CircuitState.CLOSED


def test_an_open_circuit_says_why() -> None:
    server = _Server()
    server.fails_with(Unreachable)
    with pytest.raises(Unreachable, match="Argilla does not answer: GET datasets: ConnectError"):
        server.call()


def test_a_small_call_that_is_cancelled_leaves_the_next_one_to_decide() -> None:
    server = _Server()
    server.fails_with(Unreachable)
    server.now += 1
    server.status = 200

    async def cancelled(argilla: Argilla) -> None:
        task = asyncio.create_task(argilla.call("GET", "datasets"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await argilla.call("GET", "datasets")

    server.run(cancelled)
    assert server.state() == CircuitState.CLOSED


def test_the_state_is_a_metric() -> None:
    def shown() -> list[CircuitState]:
        name = "uploader_argilla_circuit_state"
        return [s for s in _STATES if REGISTRY.get_sample_value(name, {name: s}) == 1]

    server = _Server()
    server.status = 500
    server.fails_with(Fault)
    assert shown() == [CircuitState.HALF_OPEN]
    server.fails_with(Unreachable)
    assert shown() == [CircuitState.OPEN]
    server.now += 1
    server.status = 200
    server.call()
    assert shown() == [CircuitState.CLOSED]
