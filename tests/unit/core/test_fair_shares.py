"""One client cannot take every place or every turn."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from core.web.problems import ShareExceeded, Unavailable
from core.web.rate_limits import Places, Turns, begin_request, current_client


def test_one_client_holds_its_share_and_leaves_the_rest() -> None:
    places = Places("exports", 4, 0.5)
    places.take("greedy")
    places.take("greedy")
    with pytest.raises(ShareExceeded, match="One client may have 2 exports"):
        places.take("greedy")
    places.take("modest")
    places.take("another")
    with pytest.raises(Unavailable, match="Too many exports") as full:
        places.take("fourth")
    assert full.value.headers["Retry-After"] == "5"
    places.give_back("greedy")
    places.take("fourth")


def test_a_place_that_is_given_back_is_one_place() -> None:
    places = Places("exports", 3, 0.6)
    for _ in range(2):
        places.take("a")
        places.take("a")
        places.give_back("a")
        places.take("a")
        with pytest.raises(ShareExceeded):
            places.take("a")
        places.give_back("a")
        places.give_back("a")


def test_a_share_is_one_place_at_least() -> None:
    places = Places("exports", 1, 0)
    with places.hold("a"), pytest.raises(ShareExceeded):
        places.take("a")
    with places.hold("a"):
        pass


async def _record(turns: Turns, client: str, order: list[str], go_on: asyncio.Event) -> None:
    async with turns.turn(client):
        order.append(client)
        await go_on.wait()


async def _start(turns: Turns, clients: str, order: list[str], go_on: asyncio.Event) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(_record(turns, client, order, go_on)) for client in clients]
    await asyncio.sleep(0)
    return tasks


def test_clients_take_turns_however_many_requests_each_has_sent() -> None:
    async def scenario() -> list[str]:
        turns, go_on = Turns("queries", 1, 10, 0.5), asyncio.Event()
        order: list[str] = []
        tasks = await _start(turns, "aaaabac", order, go_on)
        assert order == ["a"]
        go_on.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(scenario()) == list("aabcaaa")


def test_a_full_queue_refuses_everybody_and_a_full_share_its_client() -> None:
    async def scenario() -> None:
        turns, go_on = Turns("queries", 1, 4, 0.5), asyncio.Event()
        order: list[str] = []
        tasks = await _start(turns, "aaa", order, go_on)
        with pytest.raises(ShareExceeded):
            await _record(turns, "a", order, go_on)
        tasks += await _start(turns, "bb", order, go_on)
        with pytest.raises(Unavailable):
            await _record(turns, "c", order, go_on)
        go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_a_share_is_one_turn_at_least() -> None:
    async def scenario() -> None:
        turns, go_on = Turns("queries", 1, 4, 0), asyncio.Event()
        tasks = await _start(turns, "aa", [], go_on)
        with pytest.raises(ShareExceeded):
            await _record(turns, "a", [], go_on)
        go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_never_more_run_than_may_also_when_all_was_quiet_between() -> None:
    async def scenario() -> list[str]:
        turns, order = Turns("queries", 2, 9, 1), list[str]()
        for _ in range(2):
            go_on = asyncio.Event()
            tasks = await _start(turns, "abcd", order, go_on)
            order.append("|")  # who came so far runs at once
            go_on.set()
            await asyncio.gather(*tasks)
        return order

    assert asyncio.run(scenario()) == list("ab|cdab|cd")


def test_a_client_that_goes_leaves_its_room_in_the_queue_and_nobody_runs_for_it() -> None:
    async def scenario() -> list[str]:
        turns, go_on, order = Turns("queries", 1, 1, 1), asyncio.Event(), list[str]()
        first, gone = await _start(turns, "ab", order, go_on)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        [last] = await _start(turns, "c", order, go_on)
        assert order == ["a"]
        go_on.set()
        await asyncio.gather(first, last)
        return order

    assert asyncio.run(scenario()) == ["a", "c"]


def test_a_client_that_goes_in_the_moment_of_its_turn_leaves_it_to_its_next_request() -> None:
    async def scenario() -> list[str]:
        turns, go_on, order = Turns("queries", 1, 9, 1), asyncio.Event(), list[str]()
        first, gone, *others = await _start(turns, "abbb", order, go_on)
        go_on.set()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await asyncio.gather(first, *others)
        return order

    assert asyncio.run(scenario()) == ["a", "b", "b"]


@pytest.mark.parametrize("comes_first", ["the turn", "the cancellation"])
def test_a_turn_is_not_lost_with_a_client_that_goes(comes_first: str) -> None:
    async def scenario() -> list[str]:
        turns, go_on = Turns("queries", 1, 4, 1), asyncio.Event()
        order: list[str] = []
        first, gone, last = await _start(turns, "abc", order, go_on)
        if comes_first == "the turn":
            go_on.set()
            await asyncio.sleep(0)
            gone.cancel()
        else:
            gone.cancel()
            go_on.set()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        await asyncio.gather(first, last)
        async with asyncio.timeout(5), turns.turn("d"):
            return order

    assert asyncio.run(scenario())[-1] == "c"


def test_a_task_works_for_the_client_of_its_request() -> None:
    async def scenario() -> None:
        assert current_client() == "program"
        scope: dict[str, Any] = {"client": ("10.0.0.1", 5)}

        async def answer() -> tuple[str, str, str]:
            begin_request(scope)
            before = current_client()
            scope["api_key"] = SimpleNamespace(id="7f0c")  # known only later
            return before, current_client(), await asyncio.to_thread(current_client)

        assert await asyncio.create_task(answer()) == ("10.0.0.1", "7f0c", "7f0c")
        assert current_client() == "program"

    asyncio.run(scenario())
