"""What clients that wait for their text are told when storing it does not end with a commit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from core.datasets import load_datasets
from core.settings import DatabaseSettings
from core.text_identity import text_id
from core.web.problems import Problem
from ingestion_api.settings import IngestionSettings
from ingestion_api.texts.intake import Intake
from ingestion_api.texts.repository import StoreResult
from ingestion_api.texts.submissions import NewText

STORED = StoreResult("pending", False)


@dataclass
class Connection:
    """A connection that says whether it was closed."""

    broken: bool = False
    is_closed: bool = False

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class Database:
    """Gives connections. Each batch is stored by the next of `steps`, and without an error when there is none."""

    steps: list[Callable[[Connection], Awaitable[None]]] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    async def connect(self, *_: Any) -> Connection:
        self.connections.append(Connection())
        return self.connections[-1]

    async def insert(self, connection: Connection, rows: list[NewText], _: Any) -> list[StoreResult]:
        assert not connection.is_closed
        if self.steps:
            await self.steps.pop(0)(connection)
        return [STORED for _ in rows]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr("ingestion_api.texts.intake.connect", database.connect)
    monkeypatch.setattr("ingestion_api.texts.intake.insert_texts", database.insert)
    return database


@asynccontextmanager
async def running() -> AsyncIterator[Intake]:
    settings = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    intake = Intake(settings, IngestionSettings(), load_datasets(None), client_share=1)
    try:
        yield intake
    finally:
        await intake.close()


async def store(intake: Intake, words: str) -> StoreResult:
    key = text_id("toxicity", words).bytes
    return await intake.store(NewText(key, "toxicity", words, None, None, None, None, "{}", "{}"), "client")


def fail(error: Exception, *, breaks: bool = False) -> Callable[[Connection], Awaitable[None]]:
    async def step(connection: Connection) -> None:
        connection.broken = breaks
        raise error

    return step


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("of the code"), "Storing failed for a reason that is logged here."),
        (psycopg.errors.CheckViolation("of the table"), "The database is away."),
    ],
)
def test_after_an_error_the_next_text_is_stored_over_a_new_connection(
    database: Database, error: Exception, told: str
) -> None:
    database.steps.append(fail(error))

    async def run() -> None:
        async with running() as intake:
            with pytest.raises(Problem, match=told):
                await store(intake, "a")
            assert await store(intake, "b") == STORED

    asyncio.run(run())
    assert [connection.is_closed for connection in database.connections] == [True, True]


def test_a_connection_that_broke_is_closed_and_its_batch_stored_over_another(database: Database) -> None:
    async def run() -> None:
        async with running() as intake:
            await store(intake, "a")
            database.steps.append(fail(psycopg.OperationalError("gone"), breaks=True))
            assert await store(intake, "b") == STORED
            assert [connection.is_closed for connection in database.connections] == [True, False]

    asyncio.run(run())


def test_texts_under_way_and_in_the_queue_are_refused_when_the_program_stops(database: Database) -> None:
    async def run() -> list[Any]:
        reached = asyncio.Event()

        async def hang(_: Connection) -> None:
            reached.set()
            await asyncio.Event().wait()

        database.steps.append(hang)
        async with running() as intake:
            under_way = asyncio.create_task(store(intake, "under way"))
            await reached.wait()
            queued = asyncio.create_task(store(intake, "in the queue"))
            await asyncio.sleep(0)  # it is put into the queue
        async with asyncio.timeout(60):
            return [*await asyncio.gather(under_way, queued, return_exceptions=True)]

    told = asyncio.run(run())
    assert [(type(one).__name__, one.code) for one in told] == [("Unavailable", "stopping")] * 2
