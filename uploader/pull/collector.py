"""Reads the responses to some texts from Argilla, and makes our annotations equal to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Datasets
from core.labels.annotations import replace_annotations
from core.tracing import tracing
from uploader import metrics
from uploader.argilla.client import Argilla, RawResponses, read_isolating
from uploader.argilla.errors import ArgillaError, Unreachable
from uploader.argilla.records import blocks_record, to_response
from uploader.pull import repository

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of the texts that were read."""

    changed: Sequence[UUID]
    missing: Sequence[UUID]  # Argilla's search does not show them, or breaks down: nothing was concluded from that


class Collector:
    """Stores the responses to texts of one dataset; keeps the users' names for its callers."""

    def __init__(self, argilla: Argilla, engine: AsyncEngine, dataset: str, datasets: Datasets) -> None:
        self._argilla = argilla
        self._engine = engine
        self._dataset = dataset
        self._datasets = datasets
        self._usernames: dict[UUID, str] = {}

    async def refresh_usernames(self) -> None:
        """Read the names of all users, which may have changed."""
        self._usernames = await self._argilla.list_usernames()

    async def collect(self, argilla_dataset_id: UUID, ids: Sequence[UUID], read_at: datetime) -> Collected:
        """Take over the responses to up to 250 texts; `read_at` is Postgres' clock before this call.

        Raises:
            ArgillaError: Argilla is away.
        """

        async def read(external_ids: Sequence[str]) -> RawResponses:
            return await self._argilla.read_responses(argilla_dataset_id, external_ids)

        found, unreadable = await read_isolating(read, [str(id_) for id_ in ids])
        for id_ in unreadable:
            metrics.UNREADABLE_RECORDS.labels(self._dataset).inc()
            log.warning("pull.record_unreadable", dataset=self._dataset, text_id=id_)
        changed = await self.take_over(argilla_dataset_id, found, read_at)
        # Argilla also breaks down over a deleted record that it failed to take out of its index.
        return Collected(changed, [id_ for id_ in ids if str(id_) not in found])

    async def take_over(self, argilla_dataset_id: UUID, found: RawResponses, read_at: datetime) -> Sequence[UUID]:
        """Make our annotations of these records' texts equal to all of their responses; return what changed."""
        await self._learn_usernames(found)
        responses = {
            UUID(id_): [to_response(UUID(id_), raw, self._usernames) for raw in raws]
            for id_, raws in found.items()
        }
        async with self._engine.begin() as connection:
            changed = await connection.run_sync(
                replace_annotations, self._datasets, self._dataset, read_at, responses, argilla_dataset_id
            )
        read_ns = int(read_at.timestamp() * 1e9)
        for id_ in changed:
            tracing.add_step("pull", id_, read_ns, attributes={"dataset": self._dataset})
        for raw in (raw for raws in found.values() for raw in raws if blocks_record(raw)):
            await self._repair(raw)
        return changed

    async def _learn_usernames(self, found: RawResponses) -> None:
        """Make sure that every annotator has a name: Argilla's, else the one that we hold, else the id."""
        user_ids = {UUID(raw["user_id"]) for raws in found.values() for raw in raws}
        if user_ids <= self._usernames.keys():
            return
        self._usernames |= await self._argilla.list_usernames()
        unknown = user_ids - self._usernames.keys()
        async with self._engine.connect() as connection:
            held = await repository.list_held_usernames(connection, list(unknown))
        # Kept also for those without a name, so that they are looked up once a sweep.
        self._usernames |= {user_id: held.get(user_id, str(user_id)) for user_id in unknown}

    async def _repair(self, raw: dict[str, Any]) -> None:
        """Give a response empty values; without any, Argilla breaks down over every upsert of its record."""
        response_id = raw["id"]
        try:
            await self._argilla.call("PUT", f"responses/{response_id}", {"status": raw["status"], "values": {}})
        except Unreachable:
            raise
        except ArgillaError as error:
            metrics.REFUSED_REPAIRS.labels(self._dataset, "response").inc()
            log.warning("repair.refused", dataset=self._dataset, response_id=response_id, reason=str(error))
            return
        metrics.REPAIRED_RESPONSES.labels(self._dataset).inc()
        log.info("repair.response_repaired", dataset=self._dataset, response_id=response_id)
