"""Tests of uploader.push.claiming: which texts go next, how many, and how Postgres finds them."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.connections import make_async_engine
from core.datasets import UploadOrder
from core.settings import DatabaseSettings
from core.text_identity import text_id
from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.leading import DATASET, execute
from uploader.argilla.records import PendingText
from uploader.dataset import Pace
from uploader.push import repository
from uploader.push.claiming import QueueStart, claim_texts
from uploader.repository import mark_failed

Scores = list[float | None]

_scores = st.lists(st.none() | st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.6, 0.9, 1.0]), min_size=1, max_size=12)


async def _claim(engine: AsyncEngine, pace: Pace, count: int, bytes_: int = 1_000_000) -> list[PendingText]:
    async with engine.begin() as connection:
        return await claim_texts(connection, DATASET, uuid4(), pace, count=count, bytes_=bytes_, lease_seconds=60)


def _fill(database_url: str, scores: Scores) -> list[UUID]:
    """Make these the only texts; return their ids in the order received."""
    ids = [text_id(DATASET, f"text {i}") for i in range(len(scores))]
    rows = [(id_, DATASET, f"text {i}", score) for i, (id_, score) in enumerate(zip(ids, scores, strict=True))]
    with psycopg.connect(database_url) as connection:
        connection.execute("truncate texts, datasets restart identity")
        connection.execute("insert into datasets (name) values (%s)", [DATASET])
        connection.cursor().executemany(
            "insert into texts (id, dataset, text, score) values (%s, %s, %s, %s)", rows
        )
        # Each was received a second after the one before.
        connection.execute(
            "update texts set received_at = '2026-01-01'::timestamptz + make_interval(secs => sequence)"
        )
    return ids


class _Model:
    """What a plain look at the texts says goes next."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.left = list(range(len(scores)))
        self.uncertain_owed = 0.0

    def claim(self, order: UploadOrder, count: int) -> list[int]:
        by_order = {
            UploadOrder.OLDEST: self.left,
            UploadOrder.NEWEST: self.left[::-1],
            UploadOrder.UNCERTAIN: self._uncertain() + [i for i in self.left if self.scores[i] is None],
        }
        taken = self._mixed(count) if order == UploadOrder.MIXED else by_order[order][:count]
        self.left = [i for i in self.left if i not in taken]
        return taken

    def _uncertain(self) -> list[int]:
        distances = {i: abs(score - 0.5) for i in self.left if (score := self.scores[i]) is not None}
        return sorted(distances, key=lambda i: (distances[i], i))

    def _mixed(self, count: int) -> list[int]:
        uncertain = self._uncertain()[: int(self.uncertain_owed + count / 2)]
        oldest = [i for i in self.left if i not in uncertain][: count - len(uncertain)]
        taken = len(uncertain) + len(oldest)
        self.uncertain_owed = min(3.0, self.uncertain_owed + taken / 2 - len(uncertain))
        together = []
        for place in range(max(len(uncertain), len(oldest))):
            together += uncertain[place : place + 1] + oldest[place : place + 1]
        return together


@pytest.fixture
def engine(database_url: str) -> Iterator[tuple[asyncio.Runner, AsyncEngine]]:
    """An engine that many examples share."""
    with asyncio.Runner() as runner:
        engine = make_async_engine(DatabaseSettings(url=SecretStr(database_url)), "test")
        yield runner, engine
        runner.run(engine.dispose())


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scores=_scores, order=st.sampled_from(UploadOrder), counts=st.lists(st.integers(1, 5), min_size=1, max_size=6)
)
def test_claims_follow_the_order(
    engine: tuple[asyncio.Runner, AsyncEngine],
    database_url: str,
    scores: Scores,
    order: UploadOrder,
    counts: list[int],
) -> None:
    ids = _fill(database_url, scores)
    model = _Model(scores)
    shown: list[PendingText] = []
    for count in counts:
        claimed = engine[0].run(_claim(engine[1], Pace(order), count))
        assert [t.id for t in claimed] == [ids[i] for i in model.claim(order, count)]
        shown += claimed
    # Argilla's page, sorted by position, shows the same order, also over several batches.
    in_page = [t.id for t in sorted(shown, key=lambda t: t.page_position or 0)]
    if order == UploadOrder.UNCERTAIN:
        of = dict(zip(ids, scores, strict=True))
        distances = [1 if (s := of[id_]) is None else abs(s - 0.5) for id_ in in_page]
        assert distances == sorted(distances)
    else:
        assert in_page == [t.id for t in shown]


def test_two_claims_at_once_take_different_texts_and_neither_waits(run: RunWithEngine, database_url: str) -> None:
    ids = _fill(database_url, [None] * 4)

    async def work(engine: AsyncEngine) -> list[UUID]:
        claimed = []
        async with engine.begin() as first, engine.begin() as second:
            await second.execute(text("set local lock_timeout = '10s'"))
            for connection in (first, second):
                claimed += await claim_texts(
                    connection, DATASET, uuid4(), count=2, bytes_=1_000_000, lease_seconds=60
                )
        return [t.id for t in claimed]

    assert run(work) == ids


def test_a_claim_has_its_owner_and_its_lease(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    add_texts("claimed", "pending")
    claim = uuid4()

    async def work(engine: AsyncEngine) -> list[PendingText]:
        async with engine.begin() as connection:
            return await claim_texts(connection, DATASET, claim, count=1, bytes_=1000, lease_seconds=3600)

    [claimed] = run(work)
    assert (claimed.text, claimed.attempts) == ("claimed", 0)
    query = (
        "select text, lease_owner, lease_until between now() and now() + interval '1 hour' from texts order by 1"
    )
    assert rows(query) == [("claimed", claim, True), ("pending", None, None)]


def test_a_limit_and_what_is_owed_are_of_one_dataset(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    add_texts("open elsewhere", "also open", dataset="spam", status="uploaded")
    add_texts("returns elsewhere", dataset="spam", page_position=1)
    add_texts("a", "b", "c", score=0.5)

    async def work(engine: AsyncEngine) -> int:
        await execute(
            engine,
            "insert into datasets (name, gold_owed, uncertain_owed) values ('spam', 2, 2), ('toxicity', 0, 0)",
        )
        return len(await _claim(engine, Pace(UploadOrder.MIXED, max_open_records=2, gold_share=0.5), 9))

    assert run(work) == 2
    assert rows("select gold_owed, uncertain_owed from datasets where name = 'spam'") == [(2, 2)]
    # Two others went out, one of them uncertain: two gold texts are owed, and nothing uncertain.
    assert rows("select gold_owed, uncertain_owed from datasets where name = 'toxicity'") == [(2, 0)]


def test_what_could_not_be_had_is_made_up_for_by_three_texts_at_most(
    run: RunWithEngine, database_url: str, rows: Rows
) -> None:
    """No gold text is there, and none with a score: later they must not come in a row."""
    _fill(database_url, [None] * 40)
    run(lambda engine: _claim(engine, Pace(UploadOrder.MIXED, gold_share=0.5), 40))
    assert rows("select gold_owed, uncertain_owed from datasets") == [(3, 3)]


def test_what_is_owed_stays_while_the_settings_ask_for_no_share(
    run: RunWithEngine, database_url: str, rows: Rows
) -> None:
    _fill(database_url, [0.5] * 2)

    async def work(engine: AsyncEngine) -> None:
        await execute(engine, "update datasets set gold_owed = 2, uncertain_owed = 1")
        await _claim(engine, Pace(), 2)

    run(work)
    assert rows("select gold_owed, uncertain_owed from datasets") == [(2, 1)]


def test_a_text_that_is_larger_than_a_batch_may_be_goes_alone(run: RunWithEngine, database_url: str) -> None:
    ids = _fill(database_url, [None] * 3)
    assert [t.id for t in run(lambda engine: _claim(engine, Pace(), 3, bytes_=1))] == ids[:1]


def test_only_a_limit_or_a_share_makes_claims_take_turns() -> None:
    paces = [
        Pace(),
        Pace(UploadOrder.UNCERTAIN),
        Pace(UploadOrder.MIXED),
        Pace(gold_share=0.1),
        Pace(max_open_records=1),
    ]
    assert [pace.takes_turns for pace in paces] == [False, False, True, True, True]


def test_what_is_owed_by_a_dataset_that_is_not_known_yet_is_nothing(
    run: RunWithEngine, add_texts: AddTexts
) -> None:
    ids = add_texts("a", "b", score=0.5)
    claimed = run(lambda engine: _claim(engine, Pace(UploadOrder.MIXED), 1))
    assert [t.id for t in claimed] == ids[:1]


@pytest.mark.parametrize("order", UploadOrder)
def test_the_byte_cap_holds_in_each_order(order: UploadOrder, run: RunWithEngine, database_url: str) -> None:
    _fill(database_url, [0.5, None, 0.1, 0.7])
    sizes = run(lambda engine: _sizes_of_claims(engine, order))
    assert sizes == [2, 2]


async def _sizes_of_claims(engine: AsyncEngine, order: UploadOrder) -> list[int]:
    size = await _size_of_one(engine)
    return [len(await _claim(engine, Pace(order), 4, 2 * size)) for _ in range(2)]


async def _size_of_one(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return (
            await connection.scalar(text("select max(octet_length(text) + pg_column_size(metadata)) from texts"))
            or 0
        )


def test_no_more_than_the_limit_is_open(run: RunWithEngine, database_url: str) -> None:
    _fill(database_url, [None] * 10)
    pace = Pace(max_open_records=3)

    async def work(engine: AsyncEngine) -> list[int]:
        sizes = [len(await _claim(engine, pace, 2)) for _ in range(3)]
        await execute(engine, "update texts set status = 'uploaded' where status = 'uploading'")
        sizes.append(len(await _claim(engine, pace, 2)))
        await execute(engine, "update texts set completed_at = now() where text in ('text 0', 'text 1')")
        return [*sizes, len(await _claim(engine, pace, 9))]

    assert run(work) == [2, 1, 0, 0, 2]


def test_what_comes_back_has_its_room_and_goes_first(run: RunWithEngine, database_url: str, rows: Rows) -> None:
    """Healing puts texts back, answered ones and open ones; nothing new takes their room meanwhile."""
    ids = _fill(database_url, [None] * 10)
    pace = Pace(UploadOrder.NEWEST, max_open_records=2)

    async def work(engine: AsyncEngine) -> list[list[UUID]]:
        await _claim(engine, pace, 2)
        await execute(engine, "update texts set status = 'uploaded', completed_at = now() where page_position < 0")
        await _claim(engine, pace, 2)
        await execute(
            engine,
            "update texts set status = 'pending', retry_at = now() + interval '1 hour' where status = 'uploading'",
        )
        waiting = await _claim(engine, pace, 9)
        await execute(engine, "update texts set status = 'pending', retry_at = null where page_position < 0")
        return [
            [t.id for t in texts]
            for texts in (waiting, await _claim(engine, pace, 9), await _claim(engine, pace, 9))
        ]

    assert run(work) == [[], ids[:5:-1], []]


def test_a_failed_text_leaves_its_room(run: RunWithEngine, database_url: str) -> None:
    ids = _fill(database_url, [None] * 3)

    async def work(engine: AsyncEngine) -> list[UUID]:
        pace = Pace(max_open_records=1)
        claim = uuid4()
        async with engine.begin() as connection:
            await claim_texts(connection, DATASET, claim, pace, count=1, bytes_=1000, lease_seconds=60)
            await mark_failed(connection, claim, {ids[0]: "refused"})
        # Sent again later, it waits for room as a new one does.
        await execute(engine, "update texts set status = 'pending' where status = 'failed'")
        return [t.id for _ in range(2) for t in await _claim(engine, pace, 9)]

    assert run(work) == [ids[0]]


@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize("order", [UploadOrder.OLDEST, UploadOrder.MIXED])
def test_gold_keeps_its_share_all_the_time(
    order: UploadOrder, count: int, run: RunWithEngine, database_url: str
) -> None:
    _fill(database_url, [0.3] * 250)

    async def work(engine: AsyncEngine) -> list[bool]:
        await execute(engine, "update texts set gold_label = 'toxic' where sequence > 150")
        pace = Pace(order, gold_share=0.2)
        claimed = []
        while texts := await _claim(engine, pace, count):
            claimed += [int(t.text.removeprefix("text ")) >= 150 for t in texts]
        return claimed

    is_gold = run(work)
    # 150 others, and a fifth of all is gold; the other gold texts never go out by themselves.
    assert len(is_gold) - sum(is_gold) == 150
    assert abs(sum(is_gold) - 37.5) <= 2
    for end in range(count, len(is_gold), count):
        assert abs(sum(is_gold[:end]) - 0.2 * end) <= 2


def test_without_a_share_gold_stays_where_it_is(run: RunWithEngine, add_texts: AddTexts) -> None:
    add_texts("gold", gold_label="toxic")
    assert run(lambda engine: _claim(engine, Pace(), 5)) == []


@pytest.mark.parametrize("order", UploadOrder)
def test_gold_stands_among_the_others_in_argillas_page(
    order: UploadOrder, run: RunWithEngine, database_url: str, rows: Rows
) -> None:
    """Gold texts were all stored last, and have no score; the others are a second and some certainty apart."""
    _fill(database_url, [i / 200 for i in range(100)] + [None] * 50)

    async def work(engine: AsyncEngine) -> None:
        await execute(engine, "update texts set gold_label = 'toxic' where sequence > 100")
        await _claim(engine, Pace(order, gold_share=0.3), 100)

    run(work)
    in_page = [
        is_gold
        for (is_gold,) in rows(
            "select gold_label is not null from texts where status = 'uploading' order by page_position"
        )
    ]
    assert sum(in_page[:50]) >= 5
    assert sum(in_page[50:]) >= 5


def test_a_text_that_comes_back_before_the_start_of_the_queue_is_claimed_within_seconds(
    run: RunWithEngine, add_texts: AddTexts, database_url: str
) -> None:
    ids = add_texts(*(f"text {n}" for n in range(9)))
    now = 100.0
    start = QueueStart(lambda: now)

    async def claim(engine: AsyncEngine, count: int) -> list[UUID]:
        async with engine.begin() as connection:
            values: dict[str, Any] = {"count": count, "bytes_": 1_000_000, "lease_seconds": 60, "start": start}
            return [text.id for text in await claim_texts(connection, DATASET, uuid4(), **values)]

    async def put_back(engine: AsyncEngine) -> None:
        statement = "update texts set status = 'pending', page_position = null where id = :id"
        async with engine.begin() as connection:
            await connection.execute(text(statement), {"id": ids[0]})

    async def work(engine: AsyncEngine) -> None:
        nonlocal now
        assert await claim(engine, 3) == ids[:3]
        assert await claim(engine, 2) == ids[3:5]
        await put_back(engine)
        assert await claim(engine, 2) == ids[5:7]  # the entries before the start are not read
        now += 6
        assert await claim(engine, 2) == [ids[0], ids[7]]
        assert await claim(engine, 1) == ids[8:]
        await put_back(engine)
        assert await claim(engine, 1) == ids[:1]  # nothing is left behind the start

    run(work)


def test_looks_for_claims_that_ran_out_take_a_small_share_of_the_time(
    run: RunWithEngine, add_texts: AddTexts
) -> None:
    """Under a held snapshot each look passes the entries of all texts that were ever claimed."""
    add_texts("a", status="uploading", lease_until="2026-01-01")
    now, seconds_a_look = 100.0, 0.0

    def clock() -> float:
        nonlocal now
        now += seconds_a_look  # read once before a look, once after it
        return now

    start = QueueStart(clock)

    async def look(engine: AsyncEngine) -> int:
        async with engine.begin() as connection:
            count = await start.return_stale(connection, DATASET)
            await connection.execute(
                text("update texts set status = 'uploading', lease_until = '2026-01-01' where status = 'pending'")
            )
            return count

    async def work(engine: AsyncEngine) -> list[int]:
        nonlocal now, seconds_a_look
        found = []
        for pause, took in ((0, 0), (0.9, 0), (0.2, 5), (50, 0), (60, 0)):
            now += pause
            seconds_a_look = took
            found.append(await look(engine))
        return found

    assert run(work) == [1, 0, 1, 0, 1]


def _expected(order: UploadOrder, waiting: dict[int, float], count: int) -> set[int]:
    """Return the four texts that come next, of sequences with their scores, when `count` were asked for."""
    nearest = sorted(waiting, key=lambda sequence: abs(waiting[sequence] - 0.5))
    match order:
        case UploadOrder.OLDEST:
            return set(sorted(waiting)[:4])
        case UploadOrder.NEWEST:
            return set(sorted(waiting)[-4:])
        case UploadOrder.UNCERTAIN:
            return set(nearest[:4])
        case UploadOrder.MIXED:
            return {*nearest[:2], *sorted(waiting.keys() - set(nearest[: count // 2]))[:2]}


@pytest.mark.parametrize("count", [4, 10], ids=["all that were picked fit", "six of ten do not fit"])
@pytest.mark.parametrize("order", list(UploadOrder))
def test_claims_that_begin_behind_others_miss_no_text_that_arrives(
    order: UploadOrder, count: int, run: RunWithEngine, database_url: str
) -> None:
    chance = random.Random(3)  # noqa: S311 - repeatable
    start = QueueStart(lambda: 0)  # never time to read the whole queue again
    waiting: dict[int, float] = {}

    async def arrive(engine: AsyncEngine, number: int) -> None:
        statement = (
            "insert into texts (id, dataset, text, score) values (gen_random_uuid(), :dataset, 'x', :score)"
            " returning sequence"
        )
        async with engine.begin() as connection:
            for _ in range(number):
                score = chance.random()
                row = await connection.execute(text(statement), {"dataset": DATASET, "score": score})
                waiting[row.scalar_one()] = score

    async def claim(engine: AsyncEngine) -> set[int]:
        id_ = uuid4()
        async with engine.begin() as connection:
            bytes_ = await connection.scalar(text("select 4 * (1 + pg_column_size(metadata)) from texts limit 1"))
            values: dict[str, Any] = {"count": count, "bytes_": bytes_, "lease_seconds": 60, "start": start}
            await claim_texts(connection, DATASET, id_, Pace(order), **values)
            claimed = "select sequence from texts where lease_owner = :claim"
            return set((await connection.scalars(text(claimed), {"claim": id_})).all())

    async def work(engine: AsyncEngine) -> None:
        await arrive(engine, 40)
        for _ in range(30):
            claimed = await claim(engine)
            assert claimed == _expected(order, waiting, count)
            for sequence in claimed:
                del waiting[sequence]
            await arrive(engine, chance.randrange(8))

    with psycopg.connect(database_url) as connection:
        connection.execute("insert into datasets (name) values (%s)", [DATASET])
    run(work)


_STATEMENTS: dict[str, tuple[TextClause | None, str]] = {
    "returning": (repository.RETURNING, "ix_texts_returning"),
    "oldest": (repository.OLDEST.ordered, "ix_texts_pending"),
    "newest": (repository.NEWEST.ordered, "ix_texts_pending"),
    "uncertain": (repository.UNCERTAIN.ordered, "ix_texts_most_uncertain"),
    "unscored": (repository.UNSCORED.ordered, "ix_texts_pending"),
    "newest arrived": (repository.NEWEST.arrived, "ix_texts_pending"),
    "uncertain arrived": (repository.UNCERTAIN.arrived, "ix_texts_pending"),
    "gold": (repository.GOLD, "ix_texts_gold"),
}


def test_each_pick_follows_an_index(run: RunWithEngine, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into texts (id, dataset, text, score, status, page_position)"
            " select gen_random_uuid(), %s, 'text ' || n, case when n %% 2 = 0 then (n %% 1000) / 1000.0 end,"
            " case when n %% 4 = 0 then 'uploaded' else 'pending' end, case when n %% 4 = 0 then n end"
            " from generate_series(1, 20000) as n",
            [DATASET],
        )
        connection.execute("analyze texts")

    async def work(engine: AsyncEngine) -> dict[str, str]:
        values: dict[str, Any] = {"dataset": DATASET, "count": 250, "picked": [], "bound": 0.1, "since": 19_990}
        plans = {}
        async with engine.connect() as connection:
            for name, (statement, _) in _STATEMENTS.items():
                assert statement is not None
                plan = await connection.execute(text(f"explain {statement.text}"), values)
                plans[name] = "\n".join(row[0] for row in plan)
        return plans

    for name, plan in run(work).items():
        assert f"using {_STATEMENTS[name][1]} " in plan, plan
        assert ("Sort" in plan) == (name == "uncertain arrived"), plan
        assert "Seq Scan" not in plan, plan
