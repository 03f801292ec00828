"""Tests of uploader.repository: the queue and its fences."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.leading import DATASET, execute
from uploader import repository
from uploader.argilla.records import PendingText
from uploader.pull import repository as pull_repository
from uploader.push.claiming import claim_texts
from uploader.push.repository import return_stale_claims


async def _claim(engine: AsyncEngine, claim: UUID | None = None, **changes: Any) -> list[PendingText]:
    values = {"count": 250, "bytes_": 1_000_000, "lease_seconds": 60} | changes
    async with engine.begin() as connection:
        await return_stale_claims(connection, DATASET)
        return await claim_texts(connection, DATASET, claim or uuid4(), **values)


def test_claim_takes_the_oldest_first(run: RunWithEngine, add_texts: AddTexts) -> None:
    ids = add_texts(*(f"text {i}" for i in range(5)))
    claimed = run(lambda engine: _claim(engine, count=3))
    assert [t.id for t in claimed] == ids[:3]


def test_claim_reads_the_whole_text(run: RunWithEngine, add_texts: AddTexts) -> None:
    add_texts("a\nb", claimed_label="toxic", score=0.5, source="s", external_id="7", metadata='{"k": 1}')
    [claimed] = run(_claim)
    assert (claimed.text, claimed.claimed_label, claimed.score) == ("a\nb", "toxic", 0.5)
    assert (claimed.source, claimed.external_id, claimed.metadata) == ("s", "7", {"k": 1})
    assert claimed.received_at.tzinfo is not None


def test_claim_is_capped_in_bytes(run: RunWithEngine, add_texts: AddTexts) -> None:
    ids = add_texts("ä" * 400, "b" * 800, "c" * 800)
    assert [t.id for t in run(lambda engine: _claim(engine, bytes_=1800))] == ids[:2]


def test_a_text_over_the_cap_travels_alone(run: RunWithEngine, add_texts: AddTexts) -> None:
    ids = add_texts("a" * 5000, "b")
    assert [t.id for t in run(lambda engine: _claim(engine, bytes_=10))] == ids[:1]


def test_claim_leaves_other_datasets_and_statuses_alone(run: RunWithEngine, add_texts: AddTexts) -> None:
    add_texts("other", dataset="spam")
    for status in ("uploaded", "failed"):
        add_texts(status, status=status)
    assert run(_claim) == []


def test_claim_waits_for_retry_at(run: RunWithEngine, add_texts: AddTexts) -> None:
    add_texts("later", retry_at=datetime(2999, 1, 1, tzinfo=UTC))
    [past] = add_texts("now", retry_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert [t.id for t in run(_claim)] == [past]


def test_claim_skips_locked_texts(run: RunWithEngine, add_texts: AddTexts) -> None:
    first, second = add_texts("a", "b")

    async def work(engine: AsyncEngine) -> list[PendingText]:
        async with engine.begin() as connection:
            await connection.execute(text("select id from texts where id = :id for update"), {"id": first})
            return await _claim(engine)

    assert [t.id for t in run(work)] == [second]


def test_two_claims_never_hold_the_same_text(run: RunWithEngine, add_texts: AddTexts) -> None:
    add_texts("a", "b", "c")

    async def work(engine: AsyncEngine) -> tuple[list[PendingText], list[PendingText]]:
        return await _claim(engine, count=2), await _claim(engine, count=2)

    first, second = run(work)
    assert (len(first), len(second)) == (2, 1)
    assert not {t.id for t in first} & {t.id for t in second}


def test_a_claim_whose_lease_ran_out_is_claimed_again(run: RunWithEngine, add_texts: AddTexts) -> None:
    ids = add_texts("a")

    async def work(engine: AsyncEngine) -> tuple[list[PendingText], list[PendingText]]:
        await _claim(engine)
        before = await _claim(engine)
        await execute(engine, "update texts set lease_until = now() - interval '1 second'")
        return before, await _claim(engine)

    before, after = run(work)
    assert before == []
    assert [t.id for t in after] == ids


def test_uploaded_texts_leave_the_queue(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    ids = add_texts("a", last_error="earlier")

    async def work(engine: AsyncEngine) -> int:
        claim = uuid4()
        await _claim(engine, claim)
        async with engine.begin() as connection:
            return await repository.mark_uploaded(connection, claim, ids)

    assert run(work) == 1
    columns = "status, attempts, uploaded_at is not null, lease_owner, lease_until, last_error"
    assert rows(f"select {columns} from texts") == [("uploaded", 1, True, None, None, None)]  # noqa: S608


def test_failed_texts_keep_argillas_words(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    first, second = add_texts("a", "b")

    async def work(engine: AsyncEngine) -> int:
        claim = uuid4()
        await _claim(engine, claim)
        async with engine.begin() as connection:
            return await repository.mark_failed(
                connection, claim, {first: "nul \0 and \ud800", second: "x" * 9000}
            )

    assert run(work) == 2
    found = rows("select status, attempts, last_error, lease_owner from texts order by sequence")
    assert found == [("failed", 1, "nul � and ?", None), ("failed", 1, "x" * 2000, None)]


def test_gold_that_waits_for_its_share_is_not_the_oldest_pending_text(
    run: RunWithEngine, add_texts: AddTexts, database_url: str
) -> None:
    """With gold_share = 0 it always waits."""
    add_texts("gold", gold_label="toxic", received_at="2026-01-01")

    async def measure(engine: AsyncEngine) -> tuple[int, float]:
        async with engine.connect() as connection:
            backlog = await repository.measure_backlog(connection, DATASET)
        return backlog.pending, backlog.oldest_pending_seconds

    assert run(measure) == (1, 0)
    add_texts("new")
    count, seconds = run(measure)
    assert count == 2
    assert 0 < seconds < 3600


def test_a_lost_claim_finishes_nothing(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    first, second = add_texts("a", "b")

    async def work(engine: AsyncEngine) -> tuple[int, int, int]:
        lost, new = uuid4(), uuid4()
        await _claim(engine, lost)
        await execute(engine, "update texts set lease_until = now() - interval '1 second'")
        await _claim(engine, new)
        async with engine.begin() as connection:
            return (
                await repository.mark_uploaded(connection, lost, [first]),
                await repository.mark_failed(connection, lost, {second: "late"}),
                await repository.return_claim(connection, lost, 5),
            )

    assert run(work) == (0, 0, 0)
    assert rows("select distinct status, attempts from texts") == [("uploading", 0)]


def test_a_finished_text_is_not_finished_again(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    ids = add_texts("a")

    async def work(engine: AsyncEngine) -> int:
        claim = uuid4()
        await _claim(engine, claim)
        async with engine.begin() as connection:
            await repository.mark_uploaded(connection, claim, ids)
            return await repository.mark_failed(connection, claim, {ids[0]: "late"})

    assert run(work) == 0
    assert rows("select status from texts") == [("uploaded",)]


def test_giving_back_is_no_attempt_and_waits(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    add_texts("a")

    async def work(engine: AsyncEngine) -> list[PendingText]:
        claim = uuid4()
        await _claim(engine, claim)
        async with engine.begin() as connection:
            await repository.return_claim(connection, claim, 60)
        return await _claim(engine)

    assert run(work) == []
    assert rows("select status, attempts, retry_at > now() from texts") == [("pending", 0, True)]


def test_what_a_stopping_uploader_gives_back_waits_for_nothing(run: RunWithEngine, add_texts: AddTexts) -> None:
    add_texts("a")

    async def work(engine: AsyncEngine) -> list[PendingText]:
        claim = uuid4()
        await _claim(engine, claim)
        async with engine.begin() as connection:
            await repository.return_claim(connection, claim, 0)
        return await _claim(engine)

    assert len(run(work)) == 1


def test_another_dataset_in_argilla_forgets_what_was_swept(run: RunWithEngine, rows: Rows) -> None:
    async def work(engine: AsyncEngine) -> list[Any]:
        seen = []
        for id_ in (UUID(int=1), UUID(int=1), UUID(int=2)):
            async with engine.begin() as connection:
                await repository.remember_dataset(connection, DATASET, id_)
                state = await pull_repository.get_sweep_state(connection, DATASET)
                seen.append((state.activity_seen_at, state.difference_seen, state.seconds_since_swept is None))
                await pull_repository.begin_sweep(connection, DATASET, datetime(2026, 1, 1, tzinfo=UTC), {"a": 1})
                await pull_repository.end_sweep(connection, DATASET)
        return seen

    assert run(work) == [
        (None, None, True),
        (datetime(2026, 1, 1, tzinfo=UTC), {"a": 1}, False),
        (None, None, True),
    ]
    assert rows("select name, argilla_dataset_id from datasets") == [(DATASET, UUID(int=2))]


def test_pages_walk_through_every_uploaded_text_once(run: RunWithEngine, add_texts: AddTexts) -> None:
    ids = add_texts(*(f"t{i}" for i in range(7)), status="uploaded")
    add_texts("pending")
    add_texts("other", dataset="spam", status="uploaded")

    async def work(engine: AsyncEngine) -> list[UUID]:
        seen: list[UUID] = []
        after = UUID(int=0)
        async with engine.connect() as connection:
            while page := await pull_repository.get_page(connection, DATASET, after, 3):
                seen += [row.id for row in page]
                after = page[-1].id
        return seen

    assert run(work) == sorted(ids)


def test_the_backlog_is_counted_with_its_age(run: RunWithEngine, add_texts: AddTexts) -> None:
    add_texts("a", "b")

    async def work(engine: AsyncEngine) -> tuple[int, float]:
        await execute(engine, "update texts set received_at = now() - interval '1 hour' where text = 'a'")
        async with engine.connect() as connection:
            backlog = await repository.measure_backlog(connection, DATASET)
        return backlog.pending, backlog.oldest_pending_seconds

    count, oldest_seconds = run(work)
    assert count == 2
    assert 3600 <= oldest_seconds < 3700


def test_finishing_a_batch_reads_no_entries_of_texts_that_were_claimed_before(
    run: RunWithEngine, database_url: str
) -> None:
    """Under a held snapshot the index of uploading texts has an entry for each of them: claims got slower."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into texts (id, dataset, text, status)"
            " select gen_random_uuid(), %s, 'text ' || n, case when n > 250 then 'uploaded' else 'pending' end"
            " from generate_series(1, 20000) as n",
            [DATASET],
        )
        connection.execute("analyze texts")

    async def count_scans(engine: AsyncEngine) -> int:
        async with engine.begin() as connection:
            await connection.execute(text("select pg_stat_force_next_flush()"))
        query = "select idx_scan from pg_stat_user_indexes where indexrelname = 'ix_texts_uploading'"
        async with engine.connect() as connection:
            return await connection.scalar(text(query)) or 0

    async def work(engine: AsyncEngine) -> list[int]:
        claim = uuid4()
        ids = [one.id for one in await _claim(engine, claim)]
        scans = [await count_scans(engine)]
        async with engine.begin() as connection:
            assert await repository.mark_uploaded(connection, claim, ids[:200]) == 200
            assert await repository.mark_failed(connection, claim, dict.fromkeys(ids[200:], "bad")) == 50
        return [*scans, await count_scans(engine)]

    before, after = run(work)
    assert after == before
