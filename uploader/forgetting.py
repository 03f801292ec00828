"""Deletes forgotten texts in Argilla and makes sure that they stay deleted."""

import asyncio
import re
import time
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from core.forgetting import repository
from core.forgetting.service import blank_problems, find_rejects
from uploader import metrics
from uploader.argilla.client import Argilla
from uploader.argilla.errors import Fault, Gone, IndexLost, Refused
from uploader.argilla.records import TEXT_FIELD
from uploader.dataset import DatasetState
from uploader.settings import ForgottenFilesSettings

log = structlog.get_logger()

# What one call of Argilla deletes, and what one looks up.
_STEP_TEXTS = 100
_LOOKED_UP_TEXTS = 500

# A text that Argilla kept is tried again after this time.
_RETRY_SECONDS = 60
# If this many single texts failed and none succeeded, the fault is Argilla's.
_FAILURES_OF_ARGILLA = 3
_WORDS_CHARACTERS = 500

_BLANK = "[forgotten]"
_REFUSED = "Argilla does not let go of it: {} It is tried again every minute."
_ENTRY_LEFT = (
    "Argilla's search index holds an entry of it, without its text, and breaks down over it. "
    "Have the index made anew: python -m argilla_server search-engine reindex"
)
_SET_ASIDE_LEFT = "A dataset that was set aside in Argilla, {}, still holds it. Delete that dataset in Argilla."


class Forgetter:
    """Deletes a dataset's forgotten texts in Argilla; retries those that Argilla keeps once a minute."""

    def __init__(self, state: DatasetState, watch_seconds: float) -> None:
        """`watch_seconds`: an upload that began before a text was forgotten has ended after this time."""
        self._state = state
        self._watch_seconds = watch_seconds
        self._not_before: dict[UUID, float] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Work on all open requests. A failure of one text, or of Postgres, does not delay the others.

        Raises:
            NotLeading: another uploader leads by now.
            ArgillaError: Argilla is away, or does not let us.
            psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
        """
        parts = self._empty_argilla(stopping), _settle_imports(self._state)
        for failure in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure

    async def _empty_argilla(self, stopping: asyncio.Event) -> None:
        async with self._state.engine.connect() as connection:
            fresh, kept = await connection.run_sync(repository.list_in_argilla, self._state.name)
        now = time.monotonic()
        # A text that Argilla kept travels alone, behind the others.
        queue = [[id_] for id_ in kept if self._not_before.get(id_, now) <= now]
        queue += [fresh[first : first + _STEP_TEXTS] for first in range(0, len(fresh), _STEP_TEXTS)]
        removed, failed = 0, 0
        while queue and not stopping.is_set():
            part = queue.pop()
            try:
                left = await _remove(self._state, part)
            except IndexLost:
                raise
            except (Refused, Fault) as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    queue += [part[middle:], part[:middle]]
                    continue
                failed += 1
                await self._note(part, {part[0]: _say(error)})
                if not removed and failed == _FAILURES_OF_ARGILLA and fresh:
                    raise
            else:
                removed += len(part)
                await self._note(part, left)

    async def _note(self, ids: Sequence[UUID], left: Mapping[UUID, str]) -> None:
        name = self._state.name
        async with self._state.engine.begin() as connection:
            done = await connection.run_sync(repository.note_removed, ids, left, self._watch_seconds)
        for id_ in done:
            log.info("forget.removed_from_argilla", dataset=name, text_id=str(id_))
        for id_ in left:
            log.warning("forget.left_in_argilla", dataset=name, text_id=str(id_))
        metrics.FORGOTTEN_TEXTS.labels(name).inc(len(done))
        later = time.monotonic() + _RETRY_SECONDS
        self._not_before = {id_: at for id_, at in self._not_before.items() if id_ not in ids}
        self._not_before |= dict.fromkeys(left, later)


def _say(error: Refused | Fault) -> str:
    # Argilla's words may quote the request, which had no text.
    words = error.words[:_WORDS_CHARACTERS] if isinstance(error, Refused) else str(error)
    return _REFUSED.format(words.replace("\0", "\ufffd"))


async def keep_out(state: DatasetState) -> None:
    """Delete again forgotten texts that a late upload brought back; costs one call for each 500 texts.

    Raises:
        As `Forgetter.run`.
    """
    async with state.engine.connect() as connection:
        ids = await connection.run_sync(repository.list_forgotten, state.name)
    for first in range(0, len(ids), _LOOKED_UP_TEXTS):
        state.leadership.check()
        prepared = await state.prepare()
        part = [str(id_) for id_ in ids[first : first + _LOOKED_UP_TEXTS]]
        stored = await state.argilla.find_stored(prepared.dataset_id, part)
        if stored:
            await _take_out_again(state, prepared.dataset_id, stored)


async def _take_out_again(state: DatasetState, dataset_id: UUID, stored: Collection[str]) -> None:
    try:
        await _take_out(state.argilla, dataset_id, stored)
    except IndexLost:
        raise
    except (Refused, Fault):
        # The forget job finds the text; the sweep continues.
        async with state.engine.begin() as connection:
            await connection.run_sync(repository.open_again, [UUID(id_) for id_ in stored])
        return
    for id_ in stored:
        log.warning("forget.removed_again", dataset=state.name, text_id=id_)


async def _settle_imports(state: DatasetState) -> None:
    """Store which texts no import body holds any more, and blank the rejected rows that hold them."""
    async with state.engine.begin() as connection:
        ids = await connection.run_sync(repository.list_without_bodies, state.name)
        if not ids:
            return
        keys = await connection.run_sync(find_rejects, dict.fromkeys(ids, state.name))
        await connection.run_sync(repository.blank_rejects, keys)
        await connection.run_sync(blank_problems)
        await connection.run_sync(repository.note_imports, ids)
    if keys:
        async with state.engine.begin() as connection:
            await connection.run_sync(repository.forget_rejected_values)


async def _remove(state: DatasetState, ids: Sequence[UUID]) -> Mapping[UUID, str]:
    """Delete texts in Argilla; return the reason for each text that Argilla still has a part of."""
    state.leadership.check()
    external_ids = [str(id_) for id_ in ids]
    async with state.in_argilla() as prepared:
        stored = await state.argilla.find_stored(prepared.dataset_id, external_ids)
        await _take_out(state.argilla, prepared.dataset_id, stored)
        left = dict.fromkeys(await _list_entries(state.argilla, prepared.dataset_id, external_ids), _ENTRY_LEFT)
        for dataset_id, name in await _list_set_aside(state, prepared.dataset_id):
            kept = await _take_out_set_aside(state.argilla, dataset_id, external_ids)
            left |= dict.fromkeys(kept, _SET_ASIDE_LEFT.format(name))
    return {UUID(id_): words for id_, words in left.items()}


async def _take_out(argilla: Argilla, dataset_id: UUID, external_ids: Collection[str]) -> None:
    """Empty records and delete them: if the deletion leaves an index entry, it holds no text."""
    for part in _parts(external_ids):
        record_ids = await argilla.put_records(dataset_id, [_blank(id_) for id_ in part])
        await argilla.delete_records(dataset_id, record_ids)


def _blank(external_id: str) -> dict[str, object]:
    return {"external_id": external_id, "fields": {TEXT_FIELD: _BLANK}, "metadata": None}


def _parts(external_ids: Collection[str]) -> list[list[str]]:
    ordered = sorted(external_ids)
    return [ordered[first : first + _STEP_TEXTS] for first in range(0, len(ordered), _STEP_TEXTS)]


async def _list_entries(argilla: Argilla, dataset_id: UUID, external_ids: Sequence[str]) -> list[str]:
    """Return the texts that the search index still has entries of."""
    if not await _has_entries(argilla, dataset_id, external_ids):
        return []
    return [id_ for id_ in external_ids if await _has_entries(argilla, dataset_id, [id_])]


async def _has_entries(argilla: Argilla, dataset_id: UUID, external_ids: Sequence[str]) -> bool:
    try:
        return await argilla.count_records(dataset_id, external_ids) > 0
    except Fault:
        await argilla.count_records(dataset_id, ["none"])  # else it breaks down over every search
        return True


async def _list_set_aside(state: DatasetState, dataset_id: UUID) -> list[tuple[UUID, str]]:
    """Return the datasets that healing set aside because their search index was lost."""
    workspace_id = (await state.argilla.get_dataset(dataset_id))["workspace_id"]
    aside = re.compile(rf"{re.escape(state.name)}_lost_[0-9]+")
    return [
        (UUID(dataset["id"]), dataset["name"])
        for dataset in await state.argilla.list_datasets()
        if dataset["workspace_id"] == workspace_id and aside.fullmatch(dataset["name"])
    ]


async def _take_out_set_aside(argilla: Argilla, dataset_id: UUID, external_ids: Sequence[str]) -> Collection[str]:
    """Do what `_take_out_unindexed` does; a dataset that fails or is gone does not hold up the others."""
    try:
        return await _take_out_unindexed(argilla, dataset_id, external_ids)
    except Gone:
        return ()
    except (Refused, Fault):
        return external_ids


async def _take_out_unindexed(argilla: Argilla, dataset_id: UUID, external_ids: Sequence[str]) -> set[str]:
    """Delete records of a dataset without a search index, where calls end in errors; return those left."""
    stored = await argilla.find_stored(dataset_id, external_ids)
    for part in _parts(stored):
        try:
            await _take_out(argilla, dataset_id, part)
        except Fault:
            await _delete_listed(argilla, dataset_id, set(part))
    return await argilla.find_stored(dataset_id, external_ids) if stored else set()


async def _delete_listed(argilla: Argilla, dataset_id: UUID, external_ids: set[str]) -> None:
    """Delete records; finds their ids in the list of all records."""
    missing = set(external_ids)
    offset = 0
    found: list[UUID] = []
    while missing and (page := await argilla.list_records(dataset_id, offset, _STEP_TEXTS)):
        found += [UUID(record["id"]) for record in page if record["external_id"] in missing]
        missing -= {record["external_id"] for record in page}
        offset += _STEP_TEXTS
    if found:
        try:
            await argilla.delete_records(dataset_id, found)
        except Fault:
            return  # Argilla's database comes first, its index fails then; it is looked at again


_TIMEOUT_SECONDS = 30


class FilesWatch:
    """Closes the steps `replica` and `snapshots` of forget requests. Does nothing without SERVING_URL."""

    def __init__(self, engine: AsyncEngine, settings: ForgottenFilesSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._failure: str | None = None  # as logged last

    async def run(self) -> None:
        """Ask once, if a request waits for the answer.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, psycopg.Error: Postgres is away.
        """
        if self._settings.url is None:
            return
        async with self._engine.connect() as connection:
            if not await connection.run_sync(repository.waits_for_files):
                return
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, headers=self._settings.headers) as http:
                answer = await http.get(f"{str(self._settings.url).rstrip('/')}/forgotten")
                seen = answer.raise_for_status().json()
        except httpx.HTTPStatusError as error:
            self._warn(f"the serving API answered {error.response.status_code}")
            return
        except (httpx.TransportError, ValueError) as error:
            self._warn(f"the serving API does not answer: {type(error).__name__}")
            return
        self._failure = None
        async with self._engine.begin() as connection:
            await connection.run_sync(repository.store_files_seen, seen)

    def _warn(self, failure: str) -> None:
        if failure != self._failure:
            hint = "see SERVING_URL and SERVING_API_KEY (a key with the scope admin); forget requests stay open"
            log.warning("forget.files_unknown", reason=failure, hint=hint)
        self._failure = failure
