"""The upload queue while a transaction holds an old snapshot: its dead rows cannot be removed.

A REPEATABLE READ transaction (a backup, a report) stays open while texts arrive and are claimed. Each claim then
passes index entries of rows that were claimed before. Compares claims per second with the rate without one.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import psycopg
from pydantic import SecretStr
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from core.database import make_async_engine
from core.datasets import DEFAULT_DATASET
from core.settings import DatabaseSettings
from uploader import repository
from uploader.push.claiming import QueueStart, claim_texts

_ROUNDS = 2
_CLAIM_TEXTS = 250
_BYTES = 4_194_304
_LEASE_SECONDS = 120
# Pending texts that each phase begins with, so that no claim is short of them.
_BACKLOG_TEXTS = 20_000
_ARRIVING_TEXTS = 500
_GOAL = 0.7

_FILL = """
insert into texts (id, dataset, text, source)
select gen_random_uuid(), %s, 'text ' || n, 'held-queue' from generate_series(1, %s::int) as n
"""
_PENDING = "select count(*) from texts where status = 'pending'"


def measure(database_url: str, seconds: float) -> Table:
    """Claim for so many seconds without and with an old snapshot, in turns."""
    columns = ("round", "quiet, texts/s", "held, texts/s", "held / quiet")
    table = Table(*columns, title="Queue under a held transaction")
    ratios = []
    for n in range(_ROUNDS):
        quiet, held = asyncio.run(_measure_round(database_url, seconds))
        ratios.append(held / quiet)
        table.add_row(str(n + 1), f"{quiet:,.0f}", f"{held:,.0f}", f"{held / quiet:.2f}")
    table.add_row("median", "", "", f"{statistics.median(ratios):.2f}")
    table.caption = f"The held rate is that of the last third of {seconds:.0f} s. Goal: at least {_GOAL}."
    return table


async def _measure_round(database_url: str, seconds: float) -> tuple[float, float]:
    engine = make_async_engine(DatabaseSettings(url=SecretStr(database_url)), "bench held queue")
    try:
        async with _arriving(database_url):
            quiet = await _claim_for(engine, database_url, seconds)
            with psycopg.connect(database_url) as holding:
                holding.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                holding.execute("select count(*) from texts where false")
                held = await _claim_for(engine, database_url, seconds)
        return quiet, held
    finally:
        await engine.dispose()


@asynccontextmanager
async def _arriving(database_url: str) -> AsyncIterator[None]:
    """Keep a backlog of pending texts while the block runs."""

    async def fill() -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            while True:
                row = await (await connection.execute(_PENDING)).fetchone()
                missing = _BACKLOG_TEXTS - (row[0] if row else 0)
                await connection.execute(_FILL, [DEFAULT_DATASET, max(missing, _ARRIVING_TEXTS)])
                await asyncio.sleep(0.5)

    task = asyncio.create_task(fill())
    await asyncio.sleep(3)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _claim_for(engine: AsyncEngine, database_url: str, seconds: float) -> float:
    """Claim and finish batches as the uploader does, but for Argilla; return texts a second in the last third."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("vacuum analyze texts")
    began_at = time.monotonic()
    counted, counted_from, stale_at = 0, began_at + seconds * 2 / 3, began_at
    start = QueueStart()
    while (now := time.monotonic()) < began_at + seconds:
        if now >= stale_at:
            stale_at = now + 1
            async with engine.begin() as transaction:
                await repository.return_stale_claims(transaction, DEFAULT_DATASET)
        count = await _claim_and_finish(engine, start)
        if now >= counted_from:
            counted += count
    return counted / (time.monotonic() - counted_from)


async def _claim_and_finish(engine: AsyncEngine, start: QueueStart) -> int:
    claim = uuid4()
    async with engine.begin() as connection:
        texts = await claim_texts(
            connection,
            DEFAULT_DATASET,
            claim,
            count=_CLAIM_TEXTS,
            bytes_=_BYTES,
            lease_seconds=_LEASE_SECONDS,
            start=start,
        )
    async with engine.begin() as connection:
        return await repository.mark_uploaded(connection, claim, [text.id for text in texts])
