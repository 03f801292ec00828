"""A dataset whose model is kept by the uploader's job, on a real Postgres: for tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Dataset, ModelInLoop, UploadOrder
from core.text_identity import text_id
from tests.integration.uploader.leading import DATASET, get_database, leading
from tests.unit.simulated_comments import LABELS, Comment
from uploader.dataset import DatasetState
from uploader.model.model_job import ModelJob, ModelRemover
from uploader.model.model_process import Workplace
from uploader.settings import ModelSettings

START = datetime(2026, 1, 1, tzinfo=UTC)
# No pause between two looks.
AT_ONCE = ModelSettings(interval_seconds=1e-9, share=1)
DEFINITION = Dataset(
    labels=LABELS,
    guidelines="x",
    order=UploadOrder.UNCERTAIN,
    model=ModelInLoop(enabled=True, min_labels=100),
)


@dataclass
class Loop:
    """One uploader that leads, and its job."""

    state: DatasetState
    job: ModelJob
    place: Workplace

    async def look(self, on_step: Callable[[], None] = lambda: None) -> None:
        """Look once, as the job does."""
        await self.job.run(asyncio.Event(), on_step)


@asynccontextmanager
async def keeping_model(
    engine: AsyncEngine, folder: Path, definition: Dataset = DEFINITION, **changes: Any
) -> AsyncIterator[Loop]:
    """Lead the dataset with a definition; `changes` are those of the `Workplace`."""
    async with leading(engine, definition=definition) as state:
        place = Workplace(DATASET, definition, get_database(engine), str(folder), 2**31, 100_000)
        place = replace(place, **changes)
        yield Loop(state, ModelJob(state, place, AT_ONCE, anyio.CapacityLimiter(1)), place)


async def remove_model(engine: AsyncEngine) -> None:
    """Run the job of an uploader whose settings turn the model off."""
    async with leading(engine, definition=DEFINITION.model_copy(update={"model": ModelInLoop()})) as state:
        await ModelRemover(state).run(asyncio.Event(), lambda: None)


def add_labelled(
    database_url: str, comments: Sequence[Comment], *, at: datetime = START, source: str | None = None
) -> list[UUID]:
    """Insert uploaded texts with the label that one annotator gave."""
    ids = [text_id(DATASET, comment.text) for comment in comments]
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into texts (id, dataset, text, status, source, page_position, completed_at)"
            " values (%s, %s, %s, 'uploaded', %s, 1, now())",
            [(id_, DATASET, comment.text, source) for id_, comment in zip(ids, comments, strict=True)],
        )
        cursor.executemany(
            "insert into labels (text_id, dataset, label, status, agreement, votes, annotations, confidence,"
            " labelled_at) values (%s, %s, %s, 'labelled', 1, jsonb_build_object(%s::text, 1), 1, 1, %s)",
            [
                (id_, DATASET, comment.label, comment.label, at + timedelta(seconds=n))
                for n, (id_, comment) in enumerate(zip(ids, comments, strict=True))
            ],
        )
    return ids
