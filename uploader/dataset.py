"""The state of one dataset in this process, and how much of Argilla its uploads may use."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Dataset, Datasets, UploadOrder, adjudicated_by, get_definition
from core.labels.adjudication import request_missing
from core.text_identity import BEFORE_ALL
from uploader import metrics, repository
from uploader.argilla.client import Argilla
from uploader.argilla.errors import AlreadyThere, Stopped
from uploader.argilla.setup import Prepared, prepare
from uploader.leadership import Leadership
from uploader.runner import JobAlert


@dataclass(frozen=True, slots=True)
class Pace:
    """In which order annotators get texts, how many at a time, and which share of them is gold."""

    order: UploadOrder = UploadOrder.OLDEST
    max_open_records: int | None = None  # None: no limit
    gold_share: float = 0

    @property
    def takes_turns(self) -> bool:
        """Whether a claim depends on the one before: then the dataset's row must be locked for it."""
        return self.max_open_records is not None or self.has_shares

    @property
    def has_shares(self) -> bool:
        """Whether a claim makes up for what the ones before owe."""
        return self.gold_share > 0 or self.order == UploadOrder.MIXED


class ConcurrencyLimit:
    """Limits PUTs to the number of Argilla's server processes, and batches to one more, to confirm meanwhile.

    Datasets get both in the order of their requests, so that one dataset's backlog cannot starve another. A batch
    waits for its PUT no longer than another PUT takes, so its claim does not run out meanwhile.
    """

    def __init__(self, connections: int) -> None:
        self.batch_count = connections + 1
        self.batches = asyncio.Semaphore(self.batch_count)
        self.puts = asyncio.Semaphore(connections)


log = structlog.get_logger()

_LOWERED = (
    "DATASETS_FILE asks for {} answers to a text of {}, Argilla for {}. The former settings stay in force. If the "
    "file is the wrong one, set DATASETS_FILE and restart the uploader. `annotate datasets diff` shows what would "
    "change; `annotate datasets apply {}` applies it."
)


class DatasetState:
    """What the jobs of one dataset share."""

    def __init__(
        self,
        name: str,
        datasets: Datasets,
        engine: AsyncEngine,
        argilla: Argilla,
        workspace: str,
        leadership: Leadership,
        limit: ConcurrencyLimit,
        max_open_records: int | None = None,
    ) -> None:
        metrics.begin(name)
        self.name = name
        self.engine = engine
        self.argilla = argilla
        self._defined = datasets
        self._max_open_records = max_open_records
        self._use(datasets)
        self.leadership = leadership
        self.limit = limit
        self.prepared: Prepared | None = None
        self.settings_alert: JobAlert | None = None  # the definition asks for less than Argilla: it is held back
        self._workspace = workspace
        self._preparing = asyncio.Lock()

    def _use(self, datasets: Datasets) -> None:
        """Put definitions in force."""
        self.datasets = dict(datasets)
        self.definition = definition = get_definition(self.name, datasets)
        self.labels = frozenset(definition.labels)
        self.asks_once = definition.near_duplicates == "ask_once"
        # Adjudicators see every dispute: an answer that is waited for holds nothing back.
        is_paced = adjudicated_by(self.name) is None
        most = (definition.max_open_records or self._max_open_records) if is_paced else None
        self.pace = Pace(definition.order, most, definition.gold_share)

    async def prepare(self) -> Prepared:
        """Return the dataset in Argilla; prepares it if it is not prepared, or was found unfit since.

        Raises:
            ArgillaError: it cannot be prepared.
            NotLeading: another uploader leads by now.
        """
        async with self._preparing:
            if self.settings_alert is not None and await self._is_approved():
                self.prepared = None
            if self.prepared is None:
                self.prepared = await self._prepare()
            return self.prepared

    @asynccontextmanager
    async def in_argilla(self) -> AsyncIterator[Prepared]:
        """Give the dataset in Argilla to a block. If the block raises Stopped, it is prepared anew the next time.

        Raises:
            As `prepare`.
        """
        prepared = await self.prepare()
        try:
            yield prepared
        except Stopped:
            self.prepared = None  # an administrator changed it
            raise

    async def _prepare(self) -> Prepared:
        defined = get_definition(self.name, self._defined)
        may_lower = await self._is_approved()
        try:
            prepared = await prepare(self.argilla, self._workspace, self.name, defined, may_lower=may_lower)
        except AlreadyThere as error:
            raise Stopped("another program changes the dataset in Argilla at the moment") from error
        if prepared.former_answers_wanted is None:
            self.settings_alert = None
            self._use(self._defined)
        else:
            await self._hold_back(defined, prepared.former_answers_wanted)
        # A dataset that is not the one remembered means a refill: none but the leader may say so.
        async with self.leadership.transaction(to_change=True) as connection:
            await repository.remember_dataset(connection, self.name, prepared.dataset_id)
            settings = self.definition.model_dump(mode="json")
            await repository.store_settings(
                connection, self.name, settings, is_held=self.settings_alert is not None
            )
        await self._queue_disputes()
        log.info("dataset.prepared", dataset=self.name, argilla_dataset_id=str(prepared.dataset_id))
        return prepared

    async def _is_approved(self) -> bool:
        """Whether an operator approved this definition, which asks annotators for less."""
        defined = get_definition(self.name, self._defined).model_dump(mode="json")
        async with self.engine.connect() as connection:
            stored = await repository.get_settings(connection, self.name)
        return stored is not None and stored.approved == defined

    async def _hold_back(self, defined: Dataset, answers_wanted: int) -> None:
        """Use the former definition, which asks for this number of answers, as Argilla does."""
        async with self.engine.connect() as connection:
            stored = await repository.get_settings(connection, self.name)
        disputed_in = adjudicated_by(self.name)
        name, key = (self.name, "answers_wanted") if disputed_in is None else (disputed_in, "dispute_extra")
        base = self._defined[name]
        if stored and stored.in_force and disputed_in is None:
            # Those of another release may not be valid any more.
            with suppress(ValidationError):
                base = Dataset.model_validate(stored.in_force)
        self._use({**self._defined, name: base.model_copy(update={key: answers_wanted})})
        self.settings_alert = JobAlert(
            "settings_lowered", _LOWERED.format(self.name, defined.answers_wanted, answers_wanted, self.name)
        )
        log.warning(
            "settings.held_back", dataset=self.name, defined=defined.answers_wanted, in_force=answers_wanted
        )

    async def _queue_disputes(self) -> None:
        """Queue for adjudicators the texts that were disputed before the settings asked for adjudication."""
        after: UUID | None = BEFORE_ALL
        while after is not None and self.definition.dispute_extra:
            async with self.leadership.transaction() as connection:
                after = await connection.run_sync(request_missing, self.name, self.definition, after)
