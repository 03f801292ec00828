"""A dataset in Argilla as the place where a batch goes."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from core.tracing.tracing import Interval
from uploader import metrics
from uploader.argilla.client import Argilla
from uploader.argilla.errors import Fault, Stopped, Unreachable
from uploader.argilla.isolation import RawResponses, read_isolating
from uploader.argilla.records import TEXT_FIELD, Record
from uploader.push.deliver import Found
from uploader.push.restore import put_with_responses
from uploader.repository import list_uploaded_samples

# One record may have been damaged in Argilla; three hardly.
_SAMPLES = 3


@dataclass
class ArgillaDataset:
    """Implements push.Destination. `may_put` raises when this process may not put records any more."""

    argilla: Argilla
    engine: AsyncEngine
    name: str
    dataset_id: UUID
    puts: asyncio.Semaphore
    may_put: Callable[[], None]
    # Texts that were never uploaded have no old index entries, so counting is enough to confirm them.
    is_new: bool = False
    put_count: int = 0
    # External ids of the records that went in with their annotators' answers.
    restored: set[str] = field(default_factory=set)
    steps: list[Interval] = field(default_factory=list)  # for traces

    async def put(self, records: Sequence[Record]) -> None:
        """Insert or update records by `external_id`; all of them, or none."""
        async with self.puts:
            # After the wait, which may have been long: this process may have been frozen in it.
            self.may_put()
            self.put_count += 1
            with self._timed("put"):
                await self._put(records)

    async def _put(self, records: Sequence[Record]) -> None:
        if any("responses" in record for record in records):
            self.restored |= await put_with_responses(self.argilla, self.name, self.dataset_id, records)
        else:
            await self.argilla.put_records(self.dataset_id, records)

    async def find(self, external_ids: Sequence[str]) -> Found:
        """Look for records as annotators do.

        A search breaks down over one whose record was deleted while its entry stayed in the index: it must not
        hold back the others.
        """
        with self._timed("confirm"):
            if self.is_new and await self._shows_all(external_ids):
                return Found(set(external_ids), set())
            found, unreadable = await read_isolating(self._find, external_ids)
            return Found(set(found), set(unreadable))

    async def _shows_all(self, external_ids: Sequence[str]) -> bool:
        try:
            return await self.argilla.count_records(self.dataset_id, external_ids) == len(external_ids)
        except Fault:
            return False  # to be looked at one by one

    async def _find(self, external_ids: Sequence[str]) -> RawResponses:
        return {id_: [] for id_ in await self.argilla.find_records(self.dataset_id, external_ids)}

    async def takes_records(self) -> bool:
        """Whether Argilla just took a text again that it has; False when it has none yet.

        Raises:
            Unreachable: it cannot search, or refuses all of them.
            Stopped: the dataset is not published.
        """
        await self._check_searching()
        async with self.engine.connect() as connection:
            samples = await list_uploaded_samples(connection, self.name, _SAMPLES)
        for id_, text in samples:
            try:
                await self.put([{"external_id": str(id_), "fields": {TEXT_FIELD: text}}])
            except Fault:
                continue
            return True
        if samples:
            raise Unreachable("Argilla takes no records, not even those that it has")
        return False

    async def _check_searching(self) -> None:
        try:
            dataset = await self.argilla.get_dataset(self.dataset_id)
            await self.argilla.find_records(self.dataset_id, ["none"])
        except Fault as fault:
            raise Unreachable("Argilla breaks down over everything") from fault
        if dataset["status"] != "ready":
            raise Stopped("the dataset in Argilla is not published. Publish it.", "argilla_dataset_unpublished")

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started_ns = time.time_ns()
        with metrics.BATCH_STEP_SECONDS.labels(self.name, step).time():
            yield
        self.steps.append(Interval(step, started_ns, time.time_ns()))
