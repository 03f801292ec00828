"""One dataset's way to Argilla and back, as this process knows it."""

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Dataset
from uploader import metrics, repository
from uploader.argilla_client import Argilla
from uploader.argilla_errors import AlreadyThere, Stopped
from uploader.argilla_setup import Prepared, prepare
from uploader.leadership import Leadership

log = structlog.get_logger()


class Lane:
    """What the jobs of one dataset share."""

    def __init__(
        self,
        name: str,
        definition: Dataset,
        engine: AsyncEngine,
        argilla: Argilla,
        libpq_url: str,
        workspace: str,
    ) -> None:
        self.name = name
        self.engine = engine
        self.argilla = argilla
        self.labels = frozenset(definition.labels)
        self.asks_once = definition.near_duplicates == "ask_once"
        self.prepared: Prepared | None = None
        self.leads: bool | None = None  # None until this is known
        self._definition = definition
        self._workspace = workspace
        self._leadership = Leadership(libpq_url, name, self._return_claims)
        self._preparing = asyncio.Lock()

    async def lead(self) -> bool:
        """Whether this process leads the work on the dataset now.

        Raises:
            psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
        """
        self.leads = await self._leadership.hold()
        return self.leads

    async def _return_claims(self) -> None:
        # The former leader's lock was free, so its claims are nobody's. Should it live on after all, it finds
        # that it holds nothing any more; what it sends to Argilla a second time is an upsert.
        async with self.engine.begin() as connection:
            returned = await repository.return_claims(connection, self.name)
        if returned:
            metrics.RETRIED_TEXTS.labels(self.name).inc(returned)
            log.info("claims.returned", dataset=self.name, texts=returned)

    async def prepare(self) -> Prepared:
        """Return the dataset in Argilla, made ready when this has not been done since it was last found unfit.

        Raises:
            ArgillaError: it cannot be prepared.
        """
        async with self._preparing:
            if self.prepared is None:
                try:
                    prepared = await prepare(self.argilla, self._workspace, self.name, self._definition)
                except AlreadyThere as error:
                    raise Stopped("somebody else changes the dataset in Argilla") from error
                async with self.engine.begin() as connection:
                    await repository.remember_dataset(connection, self.name, prepared.dataset_id)
                self.prepared = prepared
                log.info("dataset.prepared", dataset=self.name, argilla_dataset_id=str(prepared.dataset_id))
            return self.prepared

    async def release(self) -> None:
        """Let another uploader lead."""
        await self._leadership.release()
