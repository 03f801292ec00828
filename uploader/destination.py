"""A dataset in Argilla as the place where batches go."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from uploader.argilla_client import Argilla
from uploader.argilla_errors import Fault, Stopped, Unreachable
from uploader.push import Record
from uploader.records import TEXT_FIELD
from uploader.repository import list_uploaded_samples

# One may have been spoilt in Argilla meanwhile; three hardly.
_SAMPLES = 3


class ArgillaDataset:
    """Implements push.Destination."""

    def __init__(self, argilla: Argilla, engine: AsyncEngine, name: str, dataset_id: UUID) -> None:
        self._argilla = argilla
        self._engine = engine
        self._name = name
        self._dataset_id = dataset_id

    async def put(self, records: Sequence[Record]) -> None:
        """Insert or update records by `external_id`; all of them, or none."""
        await self._argilla.put_records(self._dataset_id, records)

    async def find(self, external_ids: Sequence[str]) -> set[str]:
        """Return those that annotators can see."""
        return await self._argilla.find_records(self._dataset_id, external_ids)

    async def takes_records(self) -> bool:
        """Whether Argilla just took a text again that it has; False when it has none yet.

        Raises:
            Unreachable: it cannot search, or takes none of them.
            Stopped: the dataset is not published.
        """
        await self._check_searching()
        async with self._engine.connect() as connection:
            samples = await list_uploaded_samples(connection, self._name, _SAMPLES)
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
            dataset = await self._argilla.get_dataset(self._dataset_id)
            await self.find(["none"])
        except Fault as fault:
            raise Unreachable("Argilla breaks down over everything") from fault
        if dataset["status"] != "ready":
            raise Stopped("the dataset in Argilla is not published")
