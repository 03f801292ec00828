"""Uploads a batch of records and isolates the bad ones, so that the others reach annotators."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from core.tracing import Interval
from uploader import metrics
from uploader.argilla.client import Argilla, RawResponses, read_isolating
from uploader.argilla.errors import Fault, Refused, Stopped, Unreachable
from uploader.argilla.records import TEXT_FIELD, Record
from uploader.repository import list_uploaded_samples

log = structlog.get_logger()

NOT_VISIBLE = "Argilla accepted the text twice, but does not show it to annotators."
BROKE_DOWN = "Argilla breaks down over this text, and over no other."
UNREADABLE = (
    "Argilla has the text, but its search breaks down over it: most likely its index holds an entry of a record "
    "that was deleted. Have the index made anew (python -m argilla_server search-engine reindex), then retry."
)


class Found(NamedTuple):
    """What a search says of some records, by external id."""

    visible: set[str]  # annotators can see them
    unreadable: set[str]  # the search breaks down over them, and over no others


class Destination(Protocol):
    """Where records go: a dataset in Argilla, or a test's model of one. Every call may raise any ArgillaError."""

    async def put(self, records: Sequence[Record]) -> None:
        """Insert or update records by `external_id`; all of them, or none."""

    async def find(self, external_ids: Sequence[str]) -> Found:
        """Look for records as annotators do."""

    async def takes_records(self) -> bool:
        """Whether it just took a good record again; False when there was none to try with.

        Raises:
            Unreachable: it does not work at all.
        """


@dataclass
class Delivery:
    """What became of each record of a batch, by `external_id`."""

    uploaded: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)  # with the reason


def kind_of(reason: str) -> str:
    """Return the kind of a failure's reason, for metrics."""
    kinds = {BROKE_DOWN: "broke_down", NOT_VISIBLE: "not_visible", UNREADABLE: "unreadable"}
    return kinds.get(reason, "refused")


@dataclass
class _Judged:
    refused: dict[str, str] = field(default_factory=dict)
    broke_down: set[str] = field(default_factory=set)


async def deliver(destination: Destination, records: Sequence[Record]) -> Delivery:
    """Bring records to the annotators; in O(k log n) calls when k of n are bad.

    A record fails only when it is shown to be its own fault: Argilla refuses it, or handles others but not it.

    Raises:
        ArgillaError: Argilla could not work on the batch at all; some of it may be stored all the same.
    """
    judged = _Judged()
    await _put_isolating(destination, records, judged)
    accepted = [r for r in records if r["external_id"] not in judged.refused]
    visible, unreadable = await _find(destination, accepted)
    # Argilla stores first and indexes afterwards; a second PUT indexes records that were stored only.
    unseen = [r for r in accepted if r["external_id"] not in visible | unreadable | judged.broke_down]
    if unseen:
        await _put_isolating(destination, unseen, judged)
        again = await _find(destination, unseen)
        visible, unreadable = visible | again.visible, unreadable | again.unreadable
    doubtful = {r["external_id"] for r in accepted} - visible - unreadable - judged.refused.keys()
    if doubtful and not visible:
        await _blame_records(destination, doubtful - judged.broke_down)
    reasons = {id_: BROKE_DOWN if id_ in judged.broke_down else NOT_VISIBLE for id_ in doubtful}
    return Delivery(visible, judged.refused | reasons | dict.fromkeys(unreadable, UNREADABLE))


async def _find(destination: Destination, records: Sequence[Record]) -> Found:
    return await destination.find([r["external_id"] for r in records]) if records else Found(set(), set())


async def _blame_records(destination: Destination, not_visible: set[str]) -> None:
    """See that it is not Argilla's fault that nothing of a batch came through.

    Raises:
        Unreachable: it is, or that cannot be decided.
    """
    # A record that was visible before stays so: taking it again does not show that new ones are indexed.
    if not_visible:
        raise Unreachable("Argilla accepts records, but shows none of them")
    if not await destination.takes_records():
        raise Unreachable("Argilla breaks down over every record")


async def _put_isolating(destination: Destination, records: Sequence[Record], judged: _Judged) -> None:
    """Put the records; those that cannot be put are added to `judged`."""
    parts = [list(records)]
    while parts:
        part = parts.pop()
        try:
            await _put(destination, part)
        except Refused as refusal:
            parts += _without_refused(part, refusal, judged)
        except Fault:
            await destination.takes_records()
            if len(part) == 1:
                judged.broke_down.add(part[0]["external_id"])
            else:
                parts += _halves(part)


async def _put(destination: Destination, part: list[Record]) -> None:
    try:
        await destination.put(part)
    except Fault:
        # Another uploader with the same records, or a restart: once more is often enough.
        await destination.put(part)


def _without_refused(part: list[Record], refusal: Refused, judged: _Judged) -> list[list[Record]]:
    """Return the records of a refused part that can be sent again."""
    named = {position: words for position, words in refusal.by_position.items() if position < len(part)}
    if not named and len(part) > 1:
        return _halves(part)
    named = named or {0: refusal.words}
    judged.refused |= {part[position]["external_id"]: words for position, words in named.items()}
    rest = [record for position, record in enumerate(part) if position not in named]
    return [rest] if rest else []


def _halves(part: list[Record]) -> list[list[Record]]:
    middle = len(part) // 2
    return [part[middle:], part[:middle]]


def _without_responses(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "responses"}


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
            await self._put_with_responses(records)
        else:
            await self.argilla.put_records(self.dataset_id, records)

    async def _put_with_responses(self, records: Sequence[Record]) -> None:
        """Put records; those that Argilla has already go without responses, which would overwrite newer ones."""
        stored = await self.argilla.find_stored(self.dataset_id, [record["external_id"] for record in records])
        sent = [_without_responses(r) if r["external_id"] in stored else r for r in records]
        while True:
            try:
                await self.argilla.put_records(self.dataset_id, sent)
                break
            except Refused as refusal:
                blamed = {i for i in refusal.by_position if i < len(sent) and "responses" in sent[i]}
                if not blamed:
                    raise
            # For example a user who was deleted just now: the text must not fail because of that.
            metrics.REFUSED_REPAIRS.labels(self.name, "answers").inc(len(blamed))
            log.warning(
                "repair.refused", dataset=self.name, records=len(blamed), reason="Argilla refuses the answers"
            )
            sent = [_without_responses(r) if i in blamed else r for i, r in enumerate(sent)]
        self.restored |= {record["external_id"] for record in sent if "responses" in record}

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
