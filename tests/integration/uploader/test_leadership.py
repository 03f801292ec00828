"""Tests of uploader.leadership on real connections."""

import asyncio

import psycopg
import pytest

from uploader.leadership import Leadership, lock_key


async def _nothing() -> None:
    return


async def _becomes_leader(leadership: Leadership) -> bool:
    """Postgres notices a closed connection a moment later."""
    for _ in range(100):
        if await leadership.hold():
            return True
        await asyncio.sleep(0.05)
    return False


def test_one_leads_and_another_takes_over(database_url: str) -> None:
    async def work() -> tuple[bool, bool, bool]:
        first, second = (Leadership(database_url, "toxicity", _nothing) for _ in range(2))
        try:
            got = await first.hold(), await second.hold()
            await first.release()
            return *got, await _becomes_leader(second)
        finally:
            await first.release()
            await second.release()

    assert asyncio.run(work()) == (True, False, True)


def test_datasets_have_leaders_of_their_own(database_url: str) -> None:
    async def work() -> tuple[bool, bool]:
        first, second = (Leadership(database_url, name, _nothing) for name in ("toxicity", "spam"))
        try:
            return await first.hold(), await second.hold()
        finally:
            await first.release()
            await second.release()

    assert asyncio.run(work()) == (True, True)


def test_a_cut_connection_ends_the_leadership_and_it_can_be_gained_again(database_url: str) -> None:
    gained = 0

    async def on_gained() -> None:
        nonlocal gained
        gained += 1

    async def work() -> None:
        leadership = Leadership(database_url, "toxicity", on_gained)
        try:
            assert await leadership.hold()
            assert await leadership.hold()
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and application_name like 'uploader leader%'"
                )
            with pytest.raises(psycopg.OperationalError):
                await leadership.hold()
            assert await leadership.hold()
        finally:
            await leadership.release()

    asyncio.run(work())
    assert gained == 2


def test_it_does_not_lead_before_it_has_cleaned_up(database_url: str) -> None:
    async def fail() -> None:
        raise RuntimeError

    async def work() -> bool:
        broken, other = Leadership(database_url, "toxicity", fail), Leadership(database_url, "toxicity", _nothing)
        try:
            with pytest.raises(RuntimeError):
                await broken.hold()
            return await _becomes_leader(other)
        finally:
            await other.release()

    assert asyncio.run(work())


def test_lock_keys_fit_postgres_and_differ() -> None:
    keys = {lock_key(f"dataset_{i}") for i in range(1000)}
    assert len(keys) == 1000
    assert all(-(2**63) <= key < 2**63 for key in keys)
