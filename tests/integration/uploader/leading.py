"""An uploader that leads a dataset, with a model of Argilla or none: for tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Dataset
from core.settings import DatabaseSettings
from uploader.argilla.client import Argilla
from uploader.dataset import ConcurrencyLimit, DatasetState
from uploader.leadership import Leadership
from uploader.push.backlog import upload_backlog
from uploader.runner import Backoff, JobRunner
from uploader.settings import PushSettings

DATASET = "toxicity"
DEFINITION = Dataset(labels=("toxic", "non_toxic"), guidelines="x")


def get_database(engine: AsyncEngine) -> DatabaseSettings:
    """Return the settings of the database that an engine works on."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return DatabaseSettings(url=SecretStr(url))


async def execute(engine: AsyncEngine, statement: str) -> None:
    """Run a statement in a transaction of its own."""
    async with engine.begin() as connection:
        await connection.execute(text(statement))


@asynccontextmanager
async def leading(
    engine: AsyncEngine,
    answer: Callable[[httpx.Request], Any] | None = None,
    definition: Dataset = DEFINITION,
    connections: int = 1,
    **changes: Any,
) -> AsyncIterator[DatasetState]:
    """Lead the dataset until the block ends; `answer` is Argilla's side, `changes` are those of the leadership."""
    transport = httpx.MockTransport(answer) if answer else None
    async with httpx.AsyncClient(base_url="http://argilla/api/v1/", transport=transport) as http:
        leadership = Leadership(engine, DATASET, **{"lease_seconds": 60, **changes})
        await leadership.hold()
        limit = ConcurrencyLimit(connections)
        try:
            yield DatasetState(DATASET, {DATASET: definition}, engine, Argilla(http), "w", leadership, limit)
        finally:
            await leadership.release()


async def upload_pending(
    state: DatasetState, batch_size: int = 250, stopping: asyncio.Event | None = None
) -> None:
    """Upload what is pending, as the job does."""
    runner = JobRunner(DATASET, "push", Backoff(15))
    await upload_backlog(state, PushSettings(batch_size=batch_size), runner, stopping or asyncio.Event())
