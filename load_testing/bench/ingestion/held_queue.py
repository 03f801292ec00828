"""The upload queue while a transaction holds an old snapshot: its dead rows cannot be removed.

A REPEATABLE READ transaction (a backup, a report) stays open while texts arrive and are claimed. Each claim then
passes the index entries of rows that were claimed before. A second Postgres has the same load without such a
transaction; both take turns batch by batch, so that the machine's noise meets both. Each order is a dataset.
"""

import asyncio
import time
from dataclasses import dataclass, field
from uuid import uuid4

import psycopg
from pydantic import SecretStr
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.connections import make_async_engine
from core.datasets import Order
from core.migrate import migrate
from core.settings import DatabaseSettings
from local_stack.testing import running_stack
from uploader import repository
from uploader.dataset import Pace
from uploader.push.claiming import QueueStart, claim_texts

_ORDERS = (Order.OLDEST, Order.NEWEST, Order.UNCERTAIN)
_PARTS = 3  # of the time for an order, each a line of the table
_BATCH_TEXTS = 250
_BATCH_BYTES = 4_194_304
_BACKLOG_TEXTS = 20_000
_LEASE_SECONDS = 120
_GOAL = 0.7
# The stack's Postgres would end a transaction that is idle for so long.
_ENDLESS = "-c idle_in_transaction_session_timeout=0 -c transaction_timeout=0"

_ARRIVE = text("""
insert into texts (id, dataset, text, score, source)
select gen_random_uuid(), :dataset, 'text ' || n, random(), 'held-queue' from generate_series(1, :count) as n
""")


@dataclass
class _Queue:
    """One dataset's queue in one database, and how long its claims took."""

    engine: AsyncEngine
    order: Order
    start: QueueStart = field(default_factory=QueueStart)
    seconds: float = 0
    claimed: int = 0
    stale_at: float = 0

    async def arrive(self, count: int) -> None:
        """Insert texts."""
        async with self.engine.begin() as connection:
            await connection.execute(_ARRIVE, {"dataset": self.order, "count": count})

    async def claim(self) -> None:
        """Claim and finish a batch as the uploader does, without Argilla."""
        began_at = time.monotonic()
        claim = uuid4()
        async with self.engine.begin() as connection:
            if began_at >= self.stale_at:
                self.stale_at = began_at + 1
                await repository.return_stale_claims(connection, self.order)
            texts = await claim_texts(
                connection,
                self.order,
                claim,
                Pace(self.order),
                count=_BATCH_TEXTS,
                bytes_=_BATCH_BYTES,
                lease_seconds=_LEASE_SECONDS,
                start=self.start,
            )
        async with self.engine.begin() as connection:
            self.claimed += await repository.mark_uploaded(connection, claim, [text.id for text in texts])
        self.seconds += time.monotonic() - began_at


def measure(database_url: str, seconds: float) -> Table:
    """Claim for so many seconds in both, in each order."""
    columns = ("order", "texts claimed", "quiet, texts/s", "held, texts/s", "held / quiet")
    table = Table(*columns, title="Queue under a held transaction")
    with running_stack({"postgres"}) as peer, psycopg.connect(database_url, options=_ENDLESS) as holding:
        migrate(DatabaseSettings(url=SecretStr(peer.database_url)))
        holding.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holding.execute("select count(*) from texts where false")
        for order in _ORDERS:
            asyncio.run(_measure(table, order, peer.database_url, database_url, seconds))
    table.caption = f"Lines are thirds of {seconds:.0f} s. Goal: at least {_GOAL} in the last."
    return table


async def _measure(table: Table, order: Order, quiet_url: str, held_url: str, seconds: float) -> None:
    quiet, held = (
        _Queue(make_async_engine(DatabaseSettings(url=SecretStr(url)), "bench held queue"), order)
        for url in (quiet_url, held_url)
    )
    for queue in (quiet, held):
        await queue.arrive(_BACKLOG_TEXTS)
    for _ in range(_PARTS):
        for queue in (quiet, held):
            queue.seconds, queue.claimed = 0, 0
        until = time.monotonic() + seconds / _PARTS
        while time.monotonic() < until:
            for queue in (quiet, held):
                await queue.arrive(_BATCH_TEXTS)
                await queue.claim()
        rates = [queue.claimed / queue.seconds for queue in (quiet, held)]
        table.add_row(
            order, f"{held.claimed:,}", *(f"{rate:,.0f}" for rate in rates), f"{rates[1] / rates[0]:.2f}"
        )
    for queue in (quiet, held):
        await queue.engine.dispose()
