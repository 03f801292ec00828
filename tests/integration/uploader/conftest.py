"""What the uploader's tests on a real Postgres share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from core.connections import make_async_engine
from core.settings import DatabaseSettings
from core.text_identity import text_id
from tests.integration.uploader.leading import DATASET
from tests.integration.uploader.model_argilla import ModelArgilla
from tests.integration.uploader.pulling import Side, pulling

ANN = UUID(int=21)

RunWithEngine = Callable[[Callable[[AsyncEngine], Coroutine[Any, Any, Any]]], Any]
AddTexts = Callable[..., list[UUID]]
Rows = Callable[[str], list[Any]]
Compute = Callable[..., Awaitable[Any]]
Work = Callable[[Side], Awaitable[None]]
Pulling = Callable[..., None]


@pytest.fixture
def run(database_url: str) -> RunWithEngine:
    """Run a coroutine that works with an engine."""

    def run_(work: Callable[[AsyncEngine], Coroutine[Any, Any, Any]]) -> Any:
        async def with_engine() -> Any:
            engine = make_async_engine(DatabaseSettings(url=SecretStr(database_url)), "test")
            try:
                return await work(engine)
            finally:
                await engine.dispose()

        return asyncio.run(with_engine())

    return run_


@pytest.fixture
def add_texts(database_url: str) -> AddTexts:
    """Insert texts; return their ids in the order received."""

    def add(*texts: str, dataset: str = DATASET, **columns: Any) -> list[UUID]:
        names = ["id", "dataset", "text", *columns]
        statement = f"insert into texts ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})"  # noqa: S608
        ids = [text_id(dataset, text) for text in texts]
        with psycopg.connect(database_url) as connection:
            for id_, text in zip(ids, texts, strict=True):
                connection.execute(statement, [id_, dataset, text, *columns.values()])
        return ids

    return add


@pytest.fixture
def rows(database_url: str) -> Rows:
    """Run a query of the test's own."""

    def fetch(query: str) -> list[Any]:
        with psycopg.connect(database_url) as connection:
            return connection.execute(query).fetchall()

    return fetch


@pytest.fixture
def model() -> ModelArgilla:
    """An Argilla with one annotator."""
    return ModelArgilla(users={ANN: "ann"})


@pytest.fixture
def pull(run: RunWithEngine, model: ModelArgilla) -> Pulling:
    """Work as an uploader that begins just now; `settings` are of `pulling`."""

    def pull_(work: Work, **settings: Any) -> None:
        async def with_side(engine: AsyncEngine) -> None:
            async with pulling(engine, model, **settings) as side:
                await work(side)

        run(with_side)

    return pull_


@pytest.fixture(scope="session")
def working_process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def one_process(working_process: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> Compute:
    """Have the process that estimates and trains serve all tests: it imports its libraries once."""

    async def compute(_stopping: asyncio.Event, _limiter: object, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(working_process, work, *arguments)

    for job in ("model.model_job", "rules.estimation"):
        monkeypatch.setattr(f"uploader.{job}.run_in_process", compute)
    return compute
