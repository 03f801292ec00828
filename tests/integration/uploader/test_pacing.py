"""Annotators never have more than the limit, and never less for long: uploads with a fake Argilla, on Postgres."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Dataset
from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.fake_argilla import DATASET_ID, QUESTION_ID, FakeArgilla
from tests.integration.uploader.leading import DATASET, DEFINITION, leading, upload_pending
from tests.waiting import until_blocked
from uploader.argilla.client import Argilla
from uploader.argilla.errors import ArgillaError
from uploader.argilla.setup import Prepared
from uploader.dataset import ConcurrencyLimit, DatasetState
from uploader.leadership import Leadership, NotLeading
from uploader.push.backlog import settle_completion, upload_backlog
from uploader.runner import Backoff, JobRunner
from uploader.settings import PushSettings

_LIMIT = 60
_BURST = 50_000


@dataclass
class _ForgetfulArgilla(FakeArgilla):
    """Takes every seventh batch without saying so."""

    put_count: int = 0

    def _put(self, ids: list[str]) -> httpx.Response:
        answer = super()._put(ids)
        self.put_count += 1
        return httpx.Response(503) if self.put_count % 7 == 0 else answer


@dataclass
class _Scene:
    """Two uploaders, annotators who answer, and a counter of the annotators' open records."""

    engine: AsyncEngine
    argilla: _ForgetfulArgilla
    states: list[DatasetState]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    most_open: int = 0
    most_shown: int = 0

    async def upload(self, state: DatasetState) -> None:
        runner = JobRunner(DATASET, "push", Backoff(0.1))
        while not self.stopping.is_set():
            if state.leadership.leads:
                with suppress(NotLeading, ArgillaError):
                    await upload_backlog(state, PushSettings(batch_size=25), runner, self.stopping)
            await asyncio.sleep(0.01)

    async def watch(self) -> None:
        while not self.stopping.is_set():
            shown = set(self.argilla.records)
            open_, complete = await self.count()
            self.most_open = max(self.most_open, open_)
            self.most_shown = max(self.most_shown, len(shown - complete))
            await asyncio.sleep(0.002)

    async def count(self) -> tuple[int, set[str]]:
        """Return how many texts are open, and which are complete."""
        open_ = "select count(*) from texts where status in ('uploading', 'uploaded') and completed_at is null"
        async with self.engine.connect() as connection:
            count = await connection.scalar(text(open_))
            complete = await connection.scalars(text("select id::text from texts where completed_at is not null"))
            return count or 0, set(complete)

    async def answer(self, count: int) -> None:
        statement = (
            "update texts set completed_at = now() where id in (select id from texts"
            " where status = 'uploaded' and completed_at is null limit :count for no key update skip locked)"
        )
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), {"count": count})

    async def wait(self, condition: Callable[[int, int], bool]) -> None:
        """Wait for a condition of how many are open and how many complete."""
        async with asyncio.timeout(60):
            while True:
                open_, complete = await self.count()
                if condition(open_, len(complete)):
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def _scene(engine: AsyncEngine) -> AsyncIterator[_Scene]:
    fake = _ForgetfulArgilla()
    datasets = {DATASET: Dataset(labels=("toxic", "non_toxic"), guidelines="x", max_open_records=_LIMIT)}
    async with httpx.AsyncClient(
        base_url="http://argilla/api/v1/", transport=httpx.MockTransport(fake.answer)
    ) as http:
        states = []
        for _ in range(2):
            leadership = Leadership(engine, DATASET, 1000)
            states.append(
                DatasetState(DATASET, datasets, engine, Argilla(http), "w", leadership, ConcurrencyLimit(2), 1)
            )
            states[-1].prepared = Prepared(DATASET_ID, QUESTION_ID)
        yield _Scene(engine, fake, states)


async def _burst(engine: AsyncEngine) -> _Scene:
    async with _scene(engine) as scene:
        first, second = scene.states
        await first.leadership.hold()
        tasks = [asyncio.create_task(scene.upload(state)) for state in scene.states]
        tasks.append(asyncio.create_task(scene.watch()))
        await scene.wait(lambda open_, _: open_ == _LIMIT)
        await _answer_until(scene, 300)
        # The first one is cut off, and does not know it.
        async with engine.begin() as connection:
            await connection.execute(text("update datasets set leader_until = now() - interval '1 second'"))
        await second.leadership.hold()
        await _answer_until(scene, 600)
        await scene.wait(lambda open_, _: open_ == _LIMIT)
        scene.stopping.set()
        await asyncio.gather(*tasks)
        return scene


async def _answer_until(scene: _Scene, count: int) -> None:
    complete = 0
    while complete < count:
        await scene.answer(7)
        complete = len((await scene.count())[1])
        await asyncio.sleep(0.005)


@pytest.mark.soak
def test_pacing_holds_under_a_burst(run: RunWithEngine, database_url: str, rows: Rows) -> None:
    """Batches run concurrently, Argilla stores some without a response, annotators answer, the leader changes."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into texts (id, dataset, text) select gen_random_uuid(), %s, 'text ' || n"
            " from generate_series(1, %s) as n",
            [DATASET, _BURST],
        )
    scene: _Scene = run(_burst)
    assert scene.argilla.put_count > 7
    assert scene.most_open == _LIMIT
    # Also in Argilla, including texts that it stored without a response.
    assert scene.most_shown == _LIMIT
    assert rows("select count(*) from texts where status <> 'pending'")[0][0] < 1000


# Each claim waits in its transaction until the test lets it go on.
_CLAIMS_WAIT = """
create function wait_to_go_on() returns trigger language plpgsql as $$
begin perform pg_advisory_xact_lock_shared(1); return null; end $$;
create trigger wait_to_go_on after update on texts for each statement
when (pg_trigger_depth() = 0) execute function wait_to_go_on();
"""


def test_two_claims_at_once_take_turns_so_that_the_limit_holds(
    run: RunWithEngine, database_url: str, add_texts: AddTexts, rows: Rows
) -> None:
    add_texts("a", "b", "c", "d")
    definition = DEFINITION.model_copy(update={"max_open_records": 2})

    async def work(engine: AsyncEngine) -> None:
        # One connection: one batch is put while the next one is claimed.
        async with leading(engine, FakeArgilla().answer, definition, lease_seconds=1000) as state:
            state.prepared = Prepared(DATASET_ID, QUESTION_ID)
            with psycopg.connect(database_url) as gate:
                gate.execute(_CLAIMS_WAIT)
                gate.commit()
                gate.execute("select pg_advisory_xact_lock(1)")
                uploading = asyncio.create_task(upload_pending(state, 2))
                await until_blocked(database_url, 2)  # one at the gate, one behind it
            await uploading

    run(work)
    assert rows("select status, count(*) from texts group by 1 order by 1") == [("pending", 2), ("uploaded", 2)]


def test_the_datasets_own_limit_wins_and_disputes_have_none(run: RunWithEngine) -> None:
    definition = Dataset(labels=("a", "b"), guidelines="x", dispute_extra=1)
    datasets = {"own": definition.model_copy(update={"max_open_records": 7}), "other": definition}

    async def limits(engine: AsyncEngine) -> list[int | None]:
        async with httpx.AsyncClient() as http:
            argilla = Argilla(http)
            names = ("own", "other", "own-adjudication")
            states = [
                DatasetState(
                    name, datasets, engine, argilla, "w", Leadership(engine, name, 1), ConcurrencyLimit(1), 9
                )
                for name in names
            ]
            return [state.pace.max_open_records for state in states]

    assert run(limits) == [7, 9, None]


def _settle(answers_wanted: int) -> Callable[[AsyncEngine], Coroutine[Any, Any, None]]:
    async def work(engine: AsyncEngine) -> None:
        definition = DEFINITION.model_copy(update={"answers_wanted": answers_wanted})
        async with leading(engine, definition=definition, lease_seconds=1000) as state:
            await settle_completion(state, asyncio.Event())

    return work


def test_completion_follows_the_answers_wanted(run: RunWithEngine, database_url: str, rows: Rows) -> None:
    """Of 2,500 texts, each has none to four answers: more than one step."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into texts (id, dataset, text, status) select gen_random_uuid(), %s, n::text, 'uploaded'"
            " from generate_series(1, 2500) as n",
            [DATASET],
        )
        connection.execute(
            "insert into labels (text_id, dataset, label, status, agreement, votes, annotations, labelled_at)"
            " select id, dataset, 'a', 'labelled', 1, '{}', mod(text::int, 5), now() from texts"
        )
    stamps = "select text_id, changed_xid::text from labels"
    for wanted, changed in ((1, {1, 2, 3, 4}), (3, {1, 2}), (2, {2})):
        stamped = rows(stamps)
        run(_settle(wanted))
        # The change feed shows texts that are complete now, or no longer.
        told = {id_ for id_, _ in {*rows(stamps)} - {*stamped}}
        assert {int(number) % 5 for id_, number in rows("select id, text from texts") if id_ in told} == changed
        assert len(told) == 500 * len(changed)
        assert rows(
            "select completed_at is not null, min(text::int % 5), max(text::int % 5), count(*)"
            " from texts group by 1 order by 1"
        ) == [
            (False, 0, wanted - 1, 500 * wanted),
            (True, wanted, 4, 500 * (5 - wanted)),
        ]
    assert rows("select answers_wanted, completion_position from datasets") == [(2, None)]
    # Nothing has changed: nothing is written.
    before = rows("select max(xmin::text::bigint) from texts")
    run(_settle(2))
    assert rows("select max(xmin::text::bigint) from texts") == before
