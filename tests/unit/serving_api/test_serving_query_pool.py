import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
import structlog

from core.web.problems import ShareExceeded, Unavailable
from core.web.rate_limits import begin_request
from serving_api.replica.query_pool import Connect, QueryPool
from serving_api.replica.replica import Replica
from serving_api.replica.repository import State
from serving_api.settings import ReplicaSettings
from serving_api.watchdog import Crew
from tests.waiting import PATIENCE_SECONDS

ENDLESS = "select count(*) from range(100000000000) a, range(1000) b where a.range % 7 = b.range"


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(tmp_path / "replica.duckdb", ReplicaSettings())
    replica.open()
    replica.state = State("cluster", 1, 1, datetime(2026, 11, 24))  # noqa: DTZ001
    with replica.file.transaction() as cursor:
        cursor.execute("insert into state values ('cluster', 1, 1, timestamp '2026-11-24', 0)")
    yield replica
    replica.close()


def test_a_query_knows_for_which_request_it_is(replica: Replica) -> None:
    async def scenario() -> None:
        pool = QueryPool(replica, 1, 0, 10)
        for id_ in ("a", "b"):
            structlog.contextvars.bind_contextvars(request_id=id_)
            known = await pool.run(lambda *_: structlog.contextvars.get_contextvars())
            assert known["request_id"] == id_
        pool.close()

    asyncio.run(scenario())


def test_query_runs_and_its_errors_come_through(replica: Replica) -> None:
    async def scenario() -> None:
        pool = QueryPool(replica, 1, 0, 10)
        assert await pool.run(lambda cursor, _: cursor.execute("select 7").fetchall()) == [(7,)]
        with pytest.raises(duckdb.ParserException):
            await pool.run(lambda cursor, _: cursor.execute("selekt"))
        pool.close()

    asyncio.run(scenario())


def test_beyond_the_queue_queries_are_refused(replica: Replica) -> None:
    async def scenario() -> None:
        pool = QueryPool(replica, 1, 1, 10)
        go = threading.Event()
        waiting = [asyncio.create_task(pool.run(lambda *_: go.wait())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as refusal:
            await pool.run(lambda *_: None)
        assert refusal.value.code == "too_busy"
        assert refusal.value.headers["Retry-After"]
        go.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await pool.run(lambda *_: "again") == "again"
        pool.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("connect", [None, duckdb.connect])
def test_long_query_is_refused_and_ended(replica: Replica, connect: Connect | None) -> None:
    async def scenario() -> None:
        pool = QueryPool(replica, 1, 0, 0.3)
        endless = lambda cursor, *_: cursor.execute(ENDLESS).fetchall()  # noqa: E731
        with pytest.raises(Unavailable) as refusal:
            await (pool.run_beside(connect, endless) if connect else pool.run(endless))
        assert refusal.value.code == "query_timeout"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                assert await pool.run(lambda *_: "free again") == "free again"
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        else:
            pytest.fail("the query was not ended")
        pool.close()

    asyncio.run(scenario())


def test_without_a_replica_there_is_no_answer(replica: Replica) -> None:
    async def scenario() -> None:
        replica.state = None
        pool = QueryPool(replica, 1, 0, 10)
        with pytest.raises(Unavailable) as refusal:
            await pool.run(lambda *_: None)
        assert refusal.value.code == "replica_missing"
        pool.close()

    asyncio.run(scenario())


def test_a_cancellation_that_comes_with_the_answer_is_not_swallowed(replica: Replica) -> None:
    async def scenario() -> None:
        pool = QueryPool(replica, 1, 0, 10)
        started, go = threading.Event(), threading.Event()

        def work(*_: object) -> None:
            started.set()
            go.wait(20)

        task = asyncio.create_task(pool.run(work))
        while not started.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)
        go.set()
        pool.close()  # the answer is there, and the loop has not seen it yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_clients_take_turns(replica: Replica) -> None:
    """A client's one query runs after those that are under way, however many another client has sent before."""

    async def scenario() -> list[str]:
        pool, go, order = QueryPool(replica, 2, 100, 60), threading.Event(), list[str]()

        async def ask(client: str) -> None:
            begin_request({"client": (client, 1)})

            def work(*_: object) -> None:
                go.wait(20)
                order.append(client)

            await pool.run(work)

        greedy = [asyncio.create_task(ask("greedy")) for _ in range(50)]
        await asyncio.sleep(0)
        modest = asyncio.create_task(ask("modest"))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(modest, *greedy)
        pool.close()
        return order

    order = asyncio.run(scenario())
    # Two are under way, one takes the turn before it, and two finish side by side.
    assert order.index("modest") <= 4
    assert order.count("greedy") == 50


def test_one_client_has_its_share_of_the_queue(replica: Replica) -> None:
    async def scenario() -> None:
        pool, go = QueryPool(replica, 1, 4, 60, share=0.5), threading.Event()

        async def ask(client: str) -> object:
            begin_request({"client": (client, 1)})
            return await pool.run(lambda *_: go.wait(20))

        asking = [asyncio.create_task(ask("greedy")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ShareExceeded):
            await asyncio.create_task(ask("greedy"))
        asking.append(asyncio.create_task(ask("modest")))
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.gather(*asking) == [True] * 4
        pool.close()

    asyncio.run(scenario())


def test_a_query_that_does_not_end_is_overdue_and_keeps_its_turn(replica: Replica) -> None:
    async def scenario() -> None:
        crew, go = Crew("queries", 1, 0.2), threading.Event()
        pool = QueryPool(replica, 1, 4, 0.2, crew=crew)
        with pytest.raises(Unavailable, match="too long"):
            await pool.run(lambda *_: go.wait(60))
        assert crew.overdue == 1
        for _ in range(3):  # waits for its turn, and begins nothing
            with pytest.raises(Unavailable, match="too long"):
                await pool.run(lambda *_: pytest.fail("has a thread"))
        assert crew.is_stuck
        go.set()
        pool.close()
        assert not crew.is_stuck
        assert crew.overdue == 0

    asyncio.run(scenario())
