"""Tests of uploader.leadership on a real Postgres."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.leading import DATASET
from tests.waiting import until_blocked
from uploader.leadership import Leadership, NotLeading, keep_leading

_LEASE_SECONDS = 60


class _Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def _hold(leadership: Leadership) -> bool:
    await leadership.hold()
    return leadership.leads


def _expire(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("update datasets set leader_until = now() - interval '1 second'")


def test_one_leads_and_another_takes_over_what_was_released(run: RunWithEngine) -> None:
    async def work(engine: AsyncEngine) -> list[bool]:
        first, second = (Leadership(engine, DATASET, _LEASE_SECONDS) for _ in range(2))
        got = [await _hold(first), await _hold(second), await _hold(first)]
        await first.release()
        return [*got, first.leads, await _hold(second), await _hold(first)]

    assert run(work) == [True, False, True, False, True, False]


def test_datasets_have_leaders_of_their_own(run: RunWithEngine) -> None:
    async def work(engine: AsyncEngine) -> list[bool]:
        return [await _hold(Leadership(engine, name, _LEASE_SECONDS)) for name in (DATASET, "spam")]

    assert run(work) == [True, True]


def test_of_many_at_once_one_leads(run: RunWithEngine, rows: Rows) -> None:
    async def work(engine: AsyncEngine) -> list[UUID]:
        all_ = [Leadership(engine, DATASET, _LEASE_SECONDS) for _ in range(20)]
        await asyncio.gather(*(leadership.hold() for leadership in all_))
        return [leadership.id for leadership in all_ if leadership.leads]

    assert rows("select leader_id from datasets") == []
    leaders = run(work)
    assert len(leaders) == 1
    assert rows("select leader_id from datasets") == [(leaders[0],)]


def test_a_lease_that_ran_out_is_taken_over_with_its_claims(
    run: RunWithEngine, database_url: str, add_texts: AddTexts, rows: Rows
) -> None:
    async def work(engine: AsyncEngine) -> tuple[bool, bool]:
        first, second = (Leadership(engine, DATASET, _LEASE_SECONDS) for _ in range(2))
        await first.hold()
        add_texts("a", "b", status="uploading", lease_owner=uuid4())
        add_texts("other", dataset="spam", status="uploading", lease_owner=uuid4())
        _expire(database_url)
        taken = await _hold(second)
        return taken, await _hold(first)

    assert run(work) == (True, False)
    query = "select dataset, status, lease_owner is null, count(*) from texts group by 1, 2, 3 order by 1"
    assert rows(query) == [("spam", "uploading", False, 1), (DATASET, "pending", True, 2)]


def test_renewing_a_lease_that_nobody_took_leaves_the_claims_alone(
    run: RunWithEngine, database_url: str, add_texts: AddTexts, rows: Rows
) -> None:
    async def work(engine: AsyncEngine) -> bool:
        leadership = Leadership(engine, DATASET, _LEASE_SECONDS)
        await leadership.hold()
        add_texts("a", status="uploading", lease_owner=uuid4())
        _expire(database_url)
        return await _hold(leadership)

    assert run(work)
    assert rows("select status from texts") == [("uploading",)]


def test_a_leader_that_does_not_renew_stops_by_its_own_clock(run: RunWithEngine) -> None:
    async def work(engine: AsyncEngine) -> None:
        clock = _Clock(1000)
        leadership = Leadership(engine, DATASET, _LEASE_SECONDS, clock)
        await leadership.hold()
        clock.now += _LEASE_SECONDS - 1
        leadership.check()
        clock.now += 1
        with pytest.raises(NotLeading):
            leadership.check()

    run(work)


@pytest.mark.parametrize("now", [-1e9, 0, 1e9])
def test_the_clock_of_a_machine_says_nothing_about_who_leads(run: RunWithEngine, now: float) -> None:
    async def work(engine: AsyncEngine) -> list[bool]:
        first = Leadership(engine, DATASET, _LEASE_SECONDS)
        second = Leadership(engine, DATASET, _LEASE_SECONDS, _Clock(now))
        return [await _hold(first), await _hold(second)]

    assert run(work) == [True, False]


def test_one_that_was_frozen_learns_from_postgres_that_it_leads_no_more(
    run: RunWithEngine, database_url: str
) -> None:
    async def work(engine: AsyncEngine) -> bool:
        # As after a suspended machine, whose monotonic clock stood still: it believes that it leads.
        frozen, other = (Leadership(engine, DATASET, _LEASE_SECONDS) for _ in range(2))
        await frozen.hold()
        _expire(database_url)
        await other.hold()
        assert frozen.leads
        async with engine.begin() as connection:
            with pytest.raises(NotLeading):
                await frozen.confirm(connection)
            await other.confirm(connection)
        return frozen.leads

    assert not run(work)


def test_nobody_takes_over_during_a_transaction_that_confirmed_the_leader(
    run: RunWithEngine, database_url: str
) -> None:
    async def work(engine: AsyncEngine) -> tuple[bool, bool]:
        leader, other = (Leadership(engine, DATASET, _LEASE_SECONDS) for _ in range(2))
        await leader.hold()
        _expire(database_url)
        async with engine.begin() as connection:
            await leader.confirm(connection)
            taking = asyncio.create_task(other.hold())
            await until_blocked(database_url)
            early = taking.done()
        await taking
        return early, other.leads

    assert run(work) == (False, True)


def test_two_that_will_change_the_datasets_row_take_turns(run: RunWithEngine, database_url: str) -> None:
    async def work(engine: AsyncEngine) -> list[str]:
        leadership = Leadership(engine, DATASET, _LEASE_SECONDS)
        await leadership.hold()
        order = []

        async def second() -> None:
            async with engine.begin() as connection:
                await leadership.confirm(connection, to_change=True)
                order.append("second")

        async with engine.begin() as connection:
            await leadership.confirm(connection, to_change=True)
            waiting = asyncio.create_task(second())
            await until_blocked(database_url)
            order.append("first")
        await waiting
        return order

    assert run(work) == ["first", "second"]


def test_two_that_only_confirm_the_leader_do_not_wait_for_each_other(run: RunWithEngine) -> None:
    async def work(engine: AsyncEngine) -> None:
        leadership = Leadership(engine, DATASET, _LEASE_SECONDS)
        await leadership.hold()
        async with engine.begin() as first, engine.begin() as second, asyncio.timeout(60):
            await leadership.confirm(first)
            await leadership.confirm(second)

    run(work)


def test_the_lease_counts_from_the_question_not_from_the_answer(run: RunWithEngine, database_url: str) -> None:
    """Postgres' lease begins before the answer arrives: counted from that, ours would end after it."""

    async def work(engine: AsyncEngine) -> list[bool]:
        clock = _Clock(1000)
        leadership = Leadership(engine, DATASET, _LEASE_SECONDS, clock)
        await leadership.hold()
        with psycopg.connect(database_url) as busy:
            busy.execute("select from datasets for update")
            asking = asyncio.create_task(leadership.hold())
            await until_blocked(database_url)
            clock.now += 20  # while the question waits for its answer
        await asking
        clock.now = 1000 + _LEASE_SECONDS - 1
        before = leadership.leads
        clock.now += 1
        return [before, leadership.leads]

    assert run(work) == [True, False]


def test_one_that_releases_a_lease_that_it_lost_leaves_it_to_its_holder(
    run: RunWithEngine, database_url: str, rows: Rows
) -> None:
    async def work(engine: AsyncEngine) -> tuple[UUID, bool]:
        former, leader = (Leadership(engine, DATASET, _LEASE_SECONDS) for _ in range(2))
        await former.hold()
        _expire(database_url)
        await leader.hold()
        await former.release()
        return leader.id, former.leads

    leader_id, former_leads = run(work)
    assert not former_leads
    assert rows("select leader_id, leader_until > now() from datasets") == [(leader_id, True)]


def test_what_one_does_about_a_dataset_changes_no_others_lease(run: RunWithEngine, rows: Rows) -> None:
    async def work(engine: AsyncEngine) -> list[UUID]:
        ours, others = Leadership(engine, DATASET, _LEASE_SECONDS), Leadership(engine, "spam", 2 * _LEASE_SECONDS)
        await others.hold()
        await ours.hold()
        await ours.hold()
        async with engine.begin() as connection:
            await ours.confirm(connection)
            await ours.confirm(connection, to_change=True)
        await ours.release()
        return [others.id]

    others = run(work)
    found = rows("select leader_id from datasets where leader_until > now() + interval '61 seconds' order by name")
    assert found == [(others[0],)]
    assert rows("select name, leader_id is null from datasets order by name") == [("spam", False), (DATASET, True)]


def test_it_is_known_who_leads_while_postgres_answers(run: RunWithEngine) -> None:
    async def work(engine: AsyncEngine) -> list[bool]:
        leadership = Leadership(engine, DATASET, _LEASE_SECONDS)
        seen = [leadership.is_known]
        await leadership.look()
        seen.append(leadership.is_known)
        async with engine.begin() as connection:
            await connection.exec_driver_sql("alter table datasets rename to away")
        await leadership.look()  # raises nothing
        seen += [leadership.is_known, leadership.leads]
        async with engine.begin() as connection:
            await connection.exec_driver_sql("alter table away rename to datasets")
        await leadership.look()
        return [*seen, leadership.is_known]

    assert run(work) == [False, True, False, True, True]


def test_a_short_outage_of_postgres_ends_no_leadership(run: RunWithEngine, database_url: str) -> None:
    cut = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = %s"

    async def work(engine: AsyncEngine) -> list[bool]:
        leadership = Leadership(engine, DATASET, _LEASE_SECONDS)
        await leadership.hold()
        async with engine.connect() as connection:
            await connection.exec_driver_sql("select 1")
            with psycopg.connect(database_url, autocommit=True) as admin:
                admin.execute(cut, [admin.info.dbname])
            with pytest.raises(SQLAlchemyError):
                await connection.exec_driver_sql("select 1")
        return [leadership.leads, await _hold(leadership)]

    assert run(work) == [True, True]


def test_leaderships_are_kept_until_the_block_ends(run: RunWithEngine, rows: Rows) -> None:
    moments = "select distinct leader_until from datasets where leader_id is not null"

    async def work(engine: AsyncEngine) -> None:
        seen: set[Any] = set()
        async with keep_leading([Leadership(engine, DATASET, 3)]):
            while len(seen) < 3:  # renewed twice
                seen.update(rows(moments))
                await asyncio.sleep(0.1)

    run(work)
    assert rows("select leader_id, leader_until from datasets") == [(None, None)]
