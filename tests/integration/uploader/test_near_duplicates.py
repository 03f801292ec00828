"""Texts that are suppressed for a near duplicate, and when they become pending again."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from core.forgetting.service import Traces, forget_texts
from core.models.texts import near_duplicates_lock
from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.leading import DATASET
from tests.waiting import wait_for
from uploader import repository
from uploader.push.claiming import claim_texts

_STATUSES = "select text, status from texts order by sequence"
_WAITING = "select count(*) from pg_locks where locktype = 'advisory' and not granted"


def _link(database_url: str, later: UUID, twin: UUID) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("insert into near_duplicates values (%s, %s, 1)", [later, twin])


def _fail(*ids: UUID) -> Callable[[AsyncEngine], Any]:
    """Claim everything and let these fail."""

    async def work(engine: AsyncEngine) -> int:
        claim = uuid4()
        async with engine.begin() as connection:
            await claim_texts(connection, DATASET, claim, count=250, bytes_=1_000_000, lease_seconds=60)
        async with engine.begin() as connection:
            return await repository.mark_failed(connection, claim, dict.fromkeys(ids, "refused"))

    return work


def test_a_held_text_is_not_claimed(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    add_texts("asked")
    add_texts("held", status="near_duplicate")
    run(_fail())
    assert rows(_STATUSES) == [("asked", "uploading"), ("held", "near_duplicate")]


def test_a_twin_that_fails_sets_free_its_own_twins_only(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    asked, other = add_texts("asked", "other")
    held, others_twin = add_texts("held", "other's twin", status="near_duplicate")
    _link(database_url, held, asked)
    _link(database_url, others_twin, other)
    assert run(_fail(asked)) == 1
    assert rows(_STATUSES) == [
        ("asked", "failed"),
        ("other", "uploading"),
        ("held", "pending"),
        ("other's twin", "near_duplicate"),
    ]


def test_another_asked_twin_keeps_it(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    asked, other = add_texts("asked", "other")
    held, stranger = add_texts("held", "stranger", status="near_duplicate")
    _link(database_url, held, asked)
    _link(database_url, held, other)
    _link(database_url, stranger, other)
    run(_fail(asked))
    assert rows(_STATUSES)[2:] == [("held", "near_duplicate"), ("stranger", "near_duplicate")]
    assert run(_fail(other)) == 0  # still claimed by the first claim: it cannot fail by another
    assert rows(_STATUSES)[2:] == [("held", "near_duplicate"), ("stranger", "near_duplicate")]


def test_a_twin_of_another_text_that_failed_long_ago_stays_held(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    [asked] = add_texts("asked")
    [failed] = add_texts("failed long ago", status="failed")
    [twin] = add_texts("its twin", status="near_duplicate")
    _link(database_url, twin, failed)  # held for another reason since
    run(_fail(asked))
    assert rows(_STATUSES) == [("asked", "failed"), ("failed long ago", "failed"), ("its twin", "near_duplicate")]


def test_what_was_decided_about_a_twin_stays(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    [asked] = add_texts("asked")
    [twin] = add_texts("twin", status="uploaded")
    _link(database_url, twin, asked)
    run(_fail(asked))
    assert rows(_STATUSES) == [("asked", "failed"), ("twin", "uploaded")]


def test_a_failure_waits_for_who_stores_twins_of_its_own_dataset_only(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    [asked] = add_texts("asked")
    add_texts("elsewhere", dataset="spam")

    async def work(engine: AsyncEngine) -> None:
        with psycopg.connect(database_url) as storing:
            storing.execute(f"select {near_duplicates_lock('%s')}", ["spam"])
            async with asyncio.timeout(60):
                await _fail(asked)(engine)

    run(work)
    assert rows("select status from texts where text = 'asked'") == [("failed",)]


def test_a_changed_setting_sets_free(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    add_texts("held", status="near_duplicate")
    add_texts("elsewhere", dataset="spam", status="near_duplicate")

    async def work(engine: AsyncEngine) -> int:
        async with engine.begin() as connection:
            return await repository.release_held(connection, DATASET)

    assert run(work) == 1
    assert rows(_STATUSES) == [("held", "pending"), ("elsewhere", "near_duplicate")]


def test_a_twin_stored_while_it_fails_is_set_free(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    [asked] = add_texts("asked")

    async def work(engine: AsyncEngine) -> None:
        with psycopg.connect(database_url) as storing:
            storing.execute(f"select {near_duplicates_lock('%s')}", [DATASET])
            failing = asyncio.create_task(_fail(asked)(engine))
            with psycopg.connect(database_url, autocommit=True) as watching:
                await asyncio.to_thread(wait_for, lambda: watching.execute(_WAITING).fetchone() == (1,))
            # As the ingestion API does: it has seen that the twin is being asked.
            held = storing.execute(
                "insert into texts (id, dataset, text, status)"
                " values (gen_random_uuid(), %s, 'held', 'near_duplicate') returning id",
                [DATASET],
            ).fetchone()
            assert held
            storing.execute("insert into near_duplicates values (%s, %s, 1)", [held[0], asked])
            storing.commit()
            await failing

    run(work)
    assert rows(_STATUSES) == [("asked", "failed"), ("held", "pending")]


def test_locks_of_several_datasets_are_taken_in_one_order(
    run: RunWithEngine, add_texts: AddTexts, database_url: str
) -> None:
    """Else two that forget texts of the same datasets could wait for each other."""
    first, *others = ("a", "b", "c", "d", "e", "f")
    ids = [id_ for name in (*others, first) for id_ in add_texts("a", dataset=name)]

    async def forget(engine: AsyncEngine) -> list[UUID]:
        async with engine.begin() as connection:
            # A plan that Postgres may choose for many texts: it finds the datasets in no order.
            await connection.exec_driver_sql("set local enable_sort = off")
            return await connection.run_sync(lambda c: forget_texts(c, ids, Traces(), "a test"))

    async def work(engine: AsyncEngine) -> list[UUID]:
        with psycopg.connect(database_url) as storing:
            storing.execute(f"select {near_duplicates_lock('%s')}", [first])
            forgetting = asyncio.create_task(forget(engine))
            with psycopg.connect(database_url, autocommit=True) as watching:
                await asyncio.to_thread(wait_for, lambda: watching.execute(_WAITING).fetchone() == (1,))
                tried = near_duplicates_lock("%s").replace("pg_advisory", "pg_try_advisory")
                for name in others:
                    assert watching.execute(f"select {tried}", [name]).fetchone() == (True,)
        return await forgetting

    assert set(run(work)) == set(ids)
