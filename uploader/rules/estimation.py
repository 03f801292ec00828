"""Estimates the label rule of a dataset when its answers changed, and rewrites the labels that follow otherwise.

A look ends with a mark: labels that were changed before it are as the rule says. What dies in between is looked at
again. See docs/decisions/0023-label-rules.md.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from uuid import UUID

import anyio
import structlog

from core.datasets import LabelRule
from core.labels.annotations import rewrite_labels
from core.settings import DatabaseSettings
from uploader import metrics
from uploader.dataset import DatasetState
from uploader.rules import repository
from uploader.rules.crowd import NoEstimate, RuleEstimate, estimate_dataset
from uploader.runner import run_in_process
from uploader.settings import RuleSettings

log = structlog.get_logger()

# 1000 would keep the event loop busy for half a second.
BATCH_TEXTS = 250


class Estimator:
    """Keeps the labels of one dataset as its rule says."""

    def __init__(
        self,
        state: DatasetState,
        settings: RuleSettings,
        database: DatabaseSettings,
        limiter: anyio.CapacityLimiter,
    ) -> None:
        self._state = state
        self._settings = settings
        self._database = database
        self._limiter = limiter  # of the processes that estimate, all datasets together
        self._not_before = 0.0  # by time.monotonic()

    @property
    def _rule(self) -> LabelRule:
        return self._state.definition.label_rule

    async def run(self, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
        """Look whether answers changed, and if so, estimate; calls `on_step` after each batch of labels.

        An estimate that fails is logged and counted; the former one stays in force.

        Raises:
            NotLeading: another uploader leads by now.
            psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
        """
        if time.monotonic() < self._not_before or not await self._is_due():
            return
        began_at = time.monotonic()
        try:
            await self._estimate(stopping, on_step)
        except (NoEstimate, anyio.BrokenWorkerProcess) as error:
            # The latter: the process was killed, for example for lack of memory.
            metrics.RULE_FAILURES.labels(self._state.name).inc()
            reason = str(error) or type(error).__name__
            log.warning("rule.not_estimated", dataset=self._state.name, rule=self._rule, reason=reason)
        finally:
            took_seconds = time.monotonic() - began_at
            rest = max(self._settings.interval_seconds, took_seconds * (1 / self._settings.share - 1))
            self._not_before = time.monotonic() + rest

    async def _is_due(self) -> bool:
        async with self._state.engine.connect() as connection:
            state = await repository.get_state(connection, self._state.name)
        if state.rule_estimated_at is not None:
            metrics.RULE_ESTIMATED.labels(self._state.name).set(state.rule_estimated_at.timestamp())
        if self._rule == LabelRule.MAJORITY:
            # Nothing is estimated; only labels of a former rule must be rewritten.
            return state.rule is not None and not (state.rule == self._rule and state.is_marked)
        return bool(state.rule != self._rule or not state.is_marked or state.has_moved)

    async def _estimate(self, stopping: asyncio.Event, on_step: Callable[[], None]) -> None:
        with metrics.RULE_SECONDS.labels(self._state.name).time():
            estimate = await run_in_process(
                stopping, self._limiter, estimate_dataset, self._state.name, self._state.definition, self._database
            )
        if estimate is None:
            return
        if estimate.is_new:
            await self._store(estimate)
        for first in range(0, len(estimate.to_rewrite), BATCH_TEXTS):
            if stopping.is_set():
                return
            await self._rewrite(estimate.to_rewrite[first : first + BATCH_TEXTS])
            on_step()
        async with self._state.leadership.transaction(to_change=True) as connection:
            await repository.mark_rewritten(connection, self._state.name, estimate.seen_xid)

    async def _store(self, estimate: RuleEstimate) -> None:
        parameters = None if estimate.parameters is None else json.dumps(estimate.parameters)
        async with self._state.leadership.transaction(to_change=True) as connection:
            version = await repository.store_estimate(
                connection, self._state.name, self._rule, parameters, estimate.answers
            )
        metrics.RULE_ESTIMATED.labels(self._state.name).set_to_current_time()
        metrics.RULE_ANNOTATORS.labels(self._state.name).set(estimate.annotators)
        log.info(
            "rule.estimated",
            dataset=self._state.name,
            rule=self._rule,
            version=version,
            annotators=estimate.annotators,
            texts=estimate.texts,
            labels_to_rewrite=len(estimate.to_rewrite),
        )

    async def _rewrite(self, ids: Sequence[UUID]) -> None:
        async with self._state.leadership.transaction() as connection:
            await connection.run_sync(rewrite_labels, self._state.datasets, self._state.name, ids)
        metrics.RULE_REWRITTEN_LABELS.labels(self._state.name).inc(len(ids))
