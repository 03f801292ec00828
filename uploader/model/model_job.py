"""Trains a dataset's model when enough labels arrived, and writes its predictions.

All computing is in a separate process. What dies in between is done again: a model counts once its row is in
Postgres, and predictions that are missing or stale are found by comparing rows.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import structlog

from core.classifiers.model_files import KEPT_MODELS, ModelManifest
from uploader import metrics
from uploader.dataset import DatasetState
from uploader.model import repository
from uploader.model.model_process import (
    Workplace,
    measure_drift,
    refresh_predictions,
    remove_models,
    score_pending,
    train_model,
)
from uploader.model.repository import Predicted
from uploader.runner import Result, run_in_process
from uploader.settings import ModelSettings, Settings

log = structlog.get_logger()

# Labels that one transaction sends through the change feed.
BATCH_TEXTS = 500
_LEAST_NEW_LABELS = 200
# Walks over the whole queue, for texts that came back or were committed late.
_WHOLE_QUEUE_SECONDS = 600
_DRIFT_SECONDS = 600

# The process was killed or lacked memory, the storage is away or damaged, or no model can be made of the texts.
_FAILURES = (anyio.BrokenWorkerProcess, MemoryError, OSError, ValueError)


class ModelJob:
    """Keeps the model of one dataset."""

    def __init__(
        self, state: DatasetState, place: Workplace, settings: ModelSettings, limiter: anyio.CapacityLimiter
    ) -> None:
        metrics.begin_model(state.name)
        self._state = state
        self._place = place
        self._settings = settings
        self._limiter = limiter  # of the processes for models, all datasets together
        self._not_before = 0.0  # by time.monotonic(), as the times below
        self._active: str | None = None
        self._seen: str | None = None  # labels that were changed before are predicted
        self._scored_after = 0  # position in the queue
        self._walk_again_at = 0.0
        self._drift_at = 0.0
        self._drift_sources: set[str] = set()

    async def run(self, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
        """Look once: train if enough labels came, then predict; calls `on_step` after each batch.

        A failure of the process or the storage is logged and counted; the former model stays.

        Raises:
            NotLeading: another uploader leads by now.
            psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
        """
        if time.monotonic() < self._not_before:
            return
        began_at = time.monotonic()
        try:
            await self._keep(stopping, on_step)
        except _FAILURES as error:
            metrics.MODEL_FAILURES.labels(self._state.name).inc()
            log.warning("model.failed", dataset=self._state.name, kind=type(error).__name__, reason=str(error))
        finally:
            took_seconds = time.monotonic() - began_at
            rest = max(self._settings.interval_seconds, took_seconds * (1 / self._settings.share - 1))
            self._not_before = time.monotonic() + rest

    async def _keep(self, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
        async with self._state.engine.connect() as connection:
            state = await repository.read_state(connection, self._state.name)
        if state is None:
            return
        if await self._is_due(state):
            await self._train(stopping, state)
            on_step()
        elif state.active is None and state.is_accepted and self._fits(state):
            # The model was turned off, and is on again.
            async with self._state.leadership.transaction(to_change=True) as connection:
                await repository.activate(connection, self._state.name, state.latest)
        async with self._state.engine.connect() as connection:
            state = await repository.read_state(connection, self._state.name)
        if state.active is not None and not stopping.is_set():
            self._begin_with(state.active)
            metrics.MODEL_TRAINED.labels(self._state.name).set(state.active_at.timestamp())
            await self._refresh(stopping, on_step)
            await self._score_pending(stopping, on_step)
            await self._measure_drift(stopping)

    def _begin_with(self, version: str) -> None:
        if version != self._active:
            self._active, self._seen = version, None
            self._scored_after, self._walk_again_at, self._drift_at = 0, 0.0, 0.0

    async def _is_due(self, state: Any) -> bool:
        wanted = self._state.definition.model
        if self._fits(state) and state.model_asked_at is None:
            return bool(state.new >= max(_LEAST_NEW_LABELS, wanted.retrain_after * (state.texts or 0)))
        async with self._state.engine.connect() as connection:
            counts = await repository.count_by_label(connection, self._state.name, self._state.definition.labels)
        has_enough = min(counts.values()) >= wanted.min_labels
        if state.model_asked_at is not None and not has_enough:
            log.warning("model.too_few_labels", dataset=self._state.name, labels=counts, wanted=wanted.min_labels)
            async with self._state.leadership.transaction(to_change=True) as connection:
                await repository.clear_asked(connection, self._state.name, state.model_asked_at)
        return has_enough

    def _fits(self, state: Any) -> bool:
        """Whether there is a model for the labels that the settings define."""
        return state.labels is not None and tuple(state.labels) == self._state.definition.labels

    async def _train(self, stopping: asyncio.Event, state: Any) -> None:
        with metrics.MODEL_SECONDS.labels(self._state.name).time():
            manifest = await self._compute(stopping, train_model, state.active)
        if manifest is None:
            return
        async with self._state.leadership.transaction(to_change=True) as connection:
            await repository.store_model(connection, manifest)
            if state.model_asked_at is not None:
                await repository.clear_asked(connection, self._state.name, state.model_asked_at)
        self._tell(manifest)
        await self._remove_outdated(stopping)

    def _tell(self, manifest: ModelManifest) -> None:
        outcome = "accepted" if manifest.is_accepted else "refused"
        metrics.MODEL_DECISIONS.labels(self._state.name, outcome).inc()
        log.info(
            "model.trained",
            dataset=self._state.name,
            outcome=outcome,
            version=manifest.version,
            texts=manifest.sizes.texts,
            seconds=manifest.seconds,
            decision=manifest.decision,
        )

    async def _remove_outdated(self, stopping: asyncio.Event) -> None:
        """Remove the files of old models; their rows stay."""
        async with self._state.engine.connect() as connection:
            outdated = await repository.list_outdated(connection, self._state.name, KEPT_MODELS)
        removed = await self._compute(stopping, remove_models, outdated) if outdated else None
        if removed:
            log.info("model.files_removed", dataset=self._state.name, versions=removed)

    async def _refresh(self, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
        """Write the predictions of labelled texts that are missing or stale."""
        async with self._state.engine.connect() as connection:
            if self._seen is not None and not await repository.has_moved(connection, self._state.name, self._seen):
                return
        done = await self._compute(stopping, refresh_predictions, self._active)
        if done is None:
            return
        for first in range(0, len(done.rows), BATCH_TEXTS):
            if stopping.is_set() or not await self._store(
                done.rows[first : first + BATCH_TEXTS], is_labelled=True
            ):
                return
            on_step()
        self._seen = done.seen
        metrics.MODEL_SUSPECTS.labels(self._state.name).set(done.suspects / max(1, done.labelled))

    async def _score_pending(self, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
        """Score the pending texts that lack a score, page by page."""
        if not self._state.definition.uses_model_scores:
            return
        if time.monotonic() >= self._walk_again_at:
            self._scored_after, self._walk_again_at = 0, time.monotonic() + _WHOLE_QUEUE_SECONDS
        while not stopping.is_set():
            page = await self._compute(stopping, score_pending, self._active, self._scored_after)
            if page is None or page.last is None or not await self._store(page.rows, is_labelled=False):
                return
            self._scored_after = page.last
            on_step()

    async def _measure_drift(self, stopping: asyncio.Event) -> None:
        if time.monotonic() < self._drift_at or stopping.is_set():
            return
        drift = await self._compute(stopping, measure_drift, self._active)
        if drift is None:
            return
        self._drift_at = time.monotonic() + _DRIFT_SECONDS
        for source in self._drift_sources - drift.keys():
            metrics.MODEL_DRIFT.remove(self._state.name, source)
        for source, psi in drift.items():
            metrics.MODEL_DRIFT.labels(self._state.name, source).set(psi)
        self._drift_sources = set(drift)

    async def _store(self, rows: Sequence[Predicted], *, is_labelled: bool) -> bool:
        """Write predictions; False when another model is active by now."""
        version = self._active
        if not rows or version is None:
            return True
        async with self._state.leadership.transaction() as connection:
            if not await repository.is_active(connection, self._state.name, version):
                return False
            stored = await repository.store_predictions(connection, self._state.name, version, rows)
            if is_labelled:
                await repository.stamp_labels(connection, stored)
            else:
                await repository.store_scores(connection, rows)
        metrics.MODEL_SCORED.labels(self._state.name).inc(len(stored))
        return True

    async def _compute(
        self, stopping: asyncio.Event, work: Callable[..., Result], *arguments: object
    ) -> Result | None:
        return await run_in_process(stopping, self._limiter, work, self._place, *arguments)


class ModelRemover:
    """Removes the traces of a dataset's model where the settings turned it off; then there is nothing to do."""

    def __init__(self, state: DatasetState) -> None:
        self._state = state
        self._is_done = False

    async def run(self, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
        """Remove predictions and scores in batches. The models' files and rows stay, for when it is on again."""
        while not self._is_done and not stopping.is_set():
            async with self._state.leadership.transaction() as connection:
                self._is_done = not await repository.remove_traces(connection, self._state.name, BATCH_TEXTS)
            on_step()


def make_model_job(
    state: DatasetState, settings: Settings, limiter: anyio.CapacityLimiter
) -> ModelJob | ModelRemover:
    """Make the job of a dataset; `limiter` is that of the processes for models, all datasets together."""
    if not state.definition.model.enabled:
        return ModelRemover(state)
    limits = settings.model.memory_bytes, settings.model.max_texts
    place = Workplace(state.name, state.definition, settings.database, settings.models.address, *limits)
    return ModelJob(state, place, settings.model, limiter)
