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
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from uploader import metrics, repository

log = structlog.get_logger()

# One renewal may fail, and there is still time for the next.
_LOOKS_A_LEASE = 3

# Also when it has run out: as long as nobody else has taken it, nothing has happened without us.
_RENEW = text("""
update datasets set leader_until = clock_timestamp() + make_interval(secs => :lease_seconds)
where name = :dataset and leader_id = :leader
""")

# Of several that try at once one wins: the others wait for its row, and then see its lease.
_TAKE = text("""
insert into datasets (name, leader_id, leader_until)
values (:dataset, :leader, clock_timestamp() + make_interval(secs => :lease_seconds))
on conflict (name) do update set leader_id = excluded.leader_id, leader_until = excluded.leader_until
where datasets.leader_id is null or datasets.leader_until < clock_timestamp()
""")

_RELEASE = text("""
update datasets set leader_id = null, leader_until = null where name = :dataset and leader_id = :leader
""")

_CONFIRM = text("select 1 from datasets where name = :dataset and leader_id = :leader for share")

# Two that hold the row for share and then change it would wait for each other.
_CONFIRM_TO_CHANGE = text("select 1 from datasets where name = :dataset and leader_id = :leader for no key update")


class NotLeading(Exception):
    """Another uploader leads the dataset now, or may do so."""


class Leadership:
    """This process's claim to lead the work on one dataset.

    Postgres' clock alone decides who leads. What this process knows of it runs out by its own monotonic clock,
    never later than the lease, so that it stops by itself when it cannot reach Postgres or was frozen.
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
        """Whether this process leads, for all that it knows."""
        return self._until is not None and self._clock() < self._until

    def check(self) -> None:
        """See that this process leads still.

        Raises:
            NotLeading: it may not any more.
        """
        if not self.leads:
            raise NotLeading(self._dataset)

    async def confirm(self, connection: AsyncConnection, *, to_change: bool = False) -> None:
        """See in Postgres that this process leads, and keep it so until the transaction ends.

        With `to_change` the transaction may go on to change the dataset's row.

        Raises:
            NotLeading: it does not any more.
        """
        statement = _CONFIRM_TO_CHANGE if to_change else _CONFIRM
        if (await connection.execute(statement, self._values())).first() is None:
            self._end()
            raise NotLeading(self._dataset)

    async def keep(self) -> None:
        """Hold the leadership whenever nobody else does, until cancelled."""
        while True:
            await asyncio.sleep(self._lease_seconds / _LOOKS_A_LEASE)
            await self.look()

    async def look(self) -> None:
        """Hold the leadership, if nobody else does and Postgres is there."""
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
        """Keep the leadership, or take it when nobody has it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: Postgres is away; the leadership goes on until its lease runs out.
        """
        try:
            await self._hold()
        finally:
            metrics.LEADS.labels(self._dataset).set(self.leads)

    async def _hold(self) -> None:
        asked_at = self._clock()
        values = self._values() | {"lease_seconds": self._lease_seconds}
        async with self._engine.begin() as connection:
            renewed = (await connection.execute(_RENEW, values)).rowcount == 1
            taken = not renewed and (await connection.execute(_TAKE, values)).rowcount == 1
            # In the same transaction: from the first moment on the former leader's claims finish nothing.
            returned = await repository.return_claims(connection, self._dataset) if taken else 0
        self.is_known = True
        if not renewed:
            self._end()
        if renewed or taken:
            self._until = asked_at + self._lease_seconds
        if taken:
            log.info("leadership.gained", dataset=self._dataset, leader=str(self.id), claims_returned=returned)
            metrics.RETRIED_TEXTS.labels(self._dataset, "leader_changed").inc(returned)

    async def release(self) -> None:
        """Let another uploader lead.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: Postgres is away; the lease runs out by itself.
        """
        async with self._engine.begin() as connection:
            await connection.execute(_RELEASE, self._values())
        self._end()

    def _end(self) -> None:
        if self._until is not None:
            log.info("leadership.ended", dataset=self._dataset, leader=str(self.id))
        self._until = None

    def _values(self) -> dict[str, object]:
        return {"dataset": self._dataset, "leader": self.id}


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
            # Without Postgres the lease runs out by itself.
            with suppress(SQLAlchemyError, psycopg.Error):
                await leadership.release()
