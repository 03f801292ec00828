"""Our side of the way back, as one process runs it, on a model of Argilla."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion_api.texts.repository import note_reread
from tests.integration.uploader.leading import DATASET, leading
from tests.integration.uploader.model_argilla import DATASET_ID, Event, ModelArgilla
from uploader.argilla.setup import Prepared
from uploader.argilla.webhook import Registration, WebhookHealth
from uploader.dataset import DatasetState
from uploader.pull.collector import Collector, pull_once
from uploader.pull.sweep import Sweeper
from uploader.repository import remember_dataset
from uploader.settings import SweepSettings

_NEVER = 1e9


@dataclass
class Side:
    """What one uploader has."""

    state: DatasetState
    collector: Collector
    sweeper: Sweeper
    registration: Registration

    async def deliver(self, event: Event) -> bool:
        """RefreshRequest an event as the ingestion API does."""
        async with self.state.engine.begin() as connection:
            return await note_reread(connection, UUID(event.external_id), event.record_id, DATASET_ID, event.at)

    async def pull(self) -> int:
        """Read all requested texts again; return their number."""
        count = 0
        while read := await pull_once(self.collector, DATASET_ID):
            count += read
        return count

    async def push(self, model: ModelArgilla) -> None:
        """Upload pending texts like the push, so that Argilla shows them."""
        statement = text(
            "update texts set status = 'uploaded', uploaded_at = clock_timestamp() where status = 'pending'"
            " returning id"
        )
        async with self.state.engine.begin() as connection:
            for id_ in (await connection.scalars(statement)).all():
                if str(id_) not in model.records:
                    model.add_records(id_)
                model.records[str(id_)].is_visible = True

    async def look(self) -> None:
        """Sweep, if that is due."""
        await self.sweeper.run(asyncio.Event(), lambda: None)


@asynccontextmanager
async def pulling(
    engine: AsyncEngine, model: ModelArgilla, *, webhooks: bool = True, **settings: Any
) -> AsyncIterator[Side]:
    """Give an uploader that began just now. Events get no time to come unless `grace_seconds` is given.

    `clock` is the one by which it knows how long it leads.
    """
    clock = {"clock": settings.pop("clock")} if "clock" in settings else {}
    async with leading(engine, model.answer, **clock) as state:
        state.prepared = Prepared(DATASET_ID, UUID(int=11))
        async with engine.begin() as connection:
            await remember_dataset(connection, DATASET, DATASET_ID)
        registration = Registration(state.argilla, engine, "http://i/webhooks/argilla" if webhooks else None, "w")
        collector = Collector(state)
        health = WebhookHealth(settings.pop("grace_seconds", -1))
        defaults = {"full_sweep_seconds": _NEVER, "sweep_share": 1, "sweep_busy_share": 1}
        chosen = SweepSettings(**{**defaults, "count_interval_seconds": 1e-9, **settings})
        yield Side(state, collector, Sweeper(collector, chosen, registration, health), registration)
