"""One uploader works on a dataset at a time: the one that holds its lease in Postgres.

A lease, not an advisory lock: see docs/decisions/0016-leader-by-lease.md.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from uploader import metrics, repository

log = structlog.get_logger()

# One renewal may fail, and there is still time for the next.
_LOOKS_A_LEASE = 3


class NotLeading(Exception):
    """Another uploader leads the dataset now, or may do so."""


class Leadership:
    """This process's claim to lead the work on one dataset.

    Postgres' clock alone decides who leads. By its own monotonic clock this process stops at the latest when the
    lease runs out, also if it cannot reach Postgres or was frozen.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        dataset: str,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = uuid4()
        self.is_known = False  # whether Postgres could be asked lately
        self._engine = engine
        self._dataset = dataset
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._until: float | None = None

    @property
    def leads(self) -> bool:
        """Whether this process leads, as far as it knows."""
        return self._until is not None and self._clock() < self._until

    def check(self) -> None:
        """Check that this process still leads.

        Raises:
            NotLeading: it may not any more.
        """
        if not self.leads:
            raise NotLeading(self._dataset)

    async def confirm(self, connection: AsyncConnection, *, to_change: bool = False) -> None:
        """Check in Postgres that this process leads, and lock that until the transaction ends.

        With `to_change` the transaction may change the dataset's row later.

        Raises:
            NotLeading: it does not any more.
        """
        if not await repository.lock_lease(connection, self._dataset, self.id, to_change=to_change):
            self._end()
            raise NotLeading(self._dataset)

    @asynccontextmanager
    async def transaction(self, *, to_change: bool = False) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that only the leader may make: see `confirm`.

        Raises:
            NotLeading: this process does not lead any more.
        """
        async with self._engine.begin() as connection:
            await self.confirm(connection, to_change=to_change)
            yield connection

    async def keep(self) -> None:
        """Renew or take the leadership at intervals, until cancelled."""
        while True:
            await asyncio.sleep(self._lease_seconds / _LOOKS_A_LEASE)
            await self.look()

    async def look(self) -> None:
        """Renew the leadership, or take it if it is free. Errors are logged only."""
        try:
            await self.hold()
        except (SQLAlchemyError, psycopg.Error) as error:
            if self.is_known:
                log.warning("leadership.unknown", dataset=self._dataset, reason=type(error).__name__)
            self.is_known = False
        except Exception:
            log.exception("leadership.crashed", dataset=self._dataset)
            self.is_known = False

    async def hold(self) -> None:
        """Renew the leadership, or take it if it is free.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: Postgres is away; the leadership ends when its lease runs out.
        """
        asked_at = self._clock()
        lease = self._dataset, self.id, self._lease_seconds
        try:
            async with self._engine.begin() as connection:
                renewed = await repository.renew_lease(connection, *lease)
                taken = not renewed and await repository.take_lease(connection, *lease)
                # In the same transaction: from the first moment on the former leader's claims finish nothing.
                returned = await repository.return_claims(connection, self._dataset) if taken else 0
            self.is_known = True
            if not renewed:
                self._end()
            if renewed or taken:
                self._until = asked_at + self._lease_seconds
        finally:
            metrics.LEADS.labels(self._dataset).set(self.leads)
        if taken:
            log.info("leadership.gained", dataset=self._dataset, leader=str(self.id), claims_returned=returned)
            metrics.RETRIED_TEXTS.labels(self._dataset, "leader_changed").inc(returned)

    async def release(self) -> None:
        """Let another uploader lead.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: Postgres is away; the lease runs out.
        """
        async with self._engine.begin() as connection:
            await repository.release_lease(connection, self._dataset, self.id)
        self._end()

    def _end(self) -> None:
        if self._until is not None:
            log.info("leadership.ended", dataset=self._dataset, leader=str(self.id))
        self._until = None


@asynccontextmanager
async def keep_leading(leaderships: Iterable[Leadership]) -> AsyncIterator[None]:
    """Hold leaderships until the block ends, then let others lead."""
    held = list(leaderships)
    # Before the jobs start: a job with a long interval should not skip its first run.
    await asyncio.gather(*(leadership.look() for leadership in held))
    tasks = [asyncio.create_task(leadership.keep()) for leadership in held]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for leadership in held:
            # Without Postgres the lease runs out.
            with suppress(SQLAlchemyError, psycopg.Error):
                await leadership.release()
