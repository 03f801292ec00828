"""The uploader's benchmarks: claims from the upload queue, and uploads into Argilla.

**The queue** is measured while a REPEATABLE READ transaction (a backup, a report) holds an old snapshot. Postgres
cannot remove dead rows then, and each claim passes the index entries of claimed rows. A second Postgres gets the
same load without such a transaction. They alternate batch by batch, so noise of the machine affects both. Each
order of the queue is a dataset.

**Uploads** are compared with a plain loop of PUTs with the same records: with one server process of Argilla and
one connection, then with two of each over the same data.
"""

import asyncio
import os
import random
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import psycopg
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.connections import make_async_engine
from core.datasets import DEFAULT_DATASET, UploadOrder, load_datasets
from core.migrate import migrate
from core.settings import ArgillaSettings, DatabaseSettings
from core.text_identity import text_id
from load_testing.bench.harness import FigureColumn, FigureTable
from load_testing.targets import holds_within, is_ok
from local_stack.components.argilla import server_command
from local_stack.guarded import Command, GuardedProcess
from local_stack.ports import reserved_ports
from local_stack.testing import RunningStack, running_stack
from uploader import repository
from uploader.argilla.client import Argilla, make_http_client
from uploader.argilla.records import PendingText, to_record
from uploader.argilla.setup import prepare
from uploader.dataset import Pace
from uploader.push.claiming import QueueStart, claim_texts
from uploader.settings import MAX_SEARCH_TERMS

# The effect of a held transaction grows with time: 180 s show all of it.
_QUEUE_SECONDS = float(os.environ.get("BENCH_QUEUE_SECONDS", "20"))
_ORDERS = (UploadOrder.OLDEST, UploadOrder.NEWEST, UploadOrder.UNCERTAIN)
_PARTS = 3  # of the time for an order, each a line of the table
_BATCH_TEXTS = 250
_BATCH_BYTES = 4_194_304
_BACKLOG_TEXTS = 20_000
_LEASE_SECONDS = 120
_GOAL = 0.7
# Otherwise the stack's Postgres ends an idle transaction.
_ENDLESS = "-c idle_in_transaction_session_timeout=0 -c transaction_timeout=0"

_UPLOADED_TEXTS = 2000
_UPLOAD_ROUNDS = 4
_START_SECONDS = 120
_TIMEOUT_SECONDS = 120
_PROJECT = Path(__file__).parents[2]
_DEFINITION = load_datasets(None)[DEFAULT_DATASET]
_WORDS = ["you", "are", "the", "map", "update", "idiot", "thanks", "nobody", "better", "again"]

_ARRIVE = text("""
insert into texts (id, dataset, text, score, source)
select gen_random_uuid(), :dataset, 'text ' || n, random(), 'held-queue' from generate_series(1, :count) as n
""")
_INSERT = """
insert into texts (id, dataset, text, claimed_label, score, source) values (%s, %s, %s, 'toxic', 0.5, 'bench')
"""


@dataclass
class _Queue:
    """The queue of one database in an order, with the time and the number of its claims."""

    engine: AsyncEngine
    order: UploadOrder
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


def measure_queue(stack: RunningStack, _rows: int) -> FigureTable:
    """Claim texts in both servers for 20 s in each order, or `BENCH_QUEUE_SECONDS`."""
    columns = (
        FigureColumn("texts claimed", "claimed", ","),
        FigureColumn("quiet, texts/s", "quiet"),
        FigureColumn("held, texts/s", "held"),
        FigureColumn("held / quiet", "ratio", ".2f"),
    )
    table = FigureTable("Queue under a held transaction", ("order",), columns)
    table.caption = f"Lines are thirds of {_QUEUE_SECONDS:.0f} s. Goal: at least {_GOAL} in the last."
    with running_stack({"postgres"}) as peer, psycopg.connect(stack.database_url, options=_ENDLESS) as holding:
        migrate(DatabaseSettings(url=SecretStr(peer.database_url)))
        holding.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holding.execute("select count(*) from texts where false")
        for order in _ORDERS:
            asyncio.run(_measure_claims(table, order, peer.database_url, stack.database_url))
    return table


async def _measure_claims(table: FigureTable, order: UploadOrder, quiet_url: str, held_url: str) -> None:
    queues = [
        _Queue(make_async_engine(DatabaseSettings(url=SecretStr(url)), "bench held queue"), order)
        for url in (quiet_url, held_url)
    ]
    for queue in queues:
        await queue.arrive(_BACKLOG_TEXTS)
    for _ in range(_PARTS):
        for queue in queues:
            queue.seconds, queue.claimed = 0, 0
        until = time.monotonic() + _QUEUE_SECONDS / _PARTS
        while time.monotonic() < until:
            for queue in queues:
                await queue.arrive(_BATCH_TEXTS)
                await queue.claim()
        quiet, held = (queue.claimed / queue.seconds for queue in queues)
        table.add((order,), [{"claimed": queues[1].claimed, "quiet": quiet, "held": held, "ratio": held / quiet}])
    for queue in queues:
        await queue.engine.dispose()


@dataclass(frozen=True)
class _Way:
    """An Argilla with a number of server processes, and an uploader with as many connections."""

    processes: int
    argilla_url: str
    workspace: str


def measure_uploads(stack: RunningStack, _rows: int) -> FigureTable:
    """Upload 2,000 texts each way in each round, in turns.

    Needs the components that Argilla needs. Its own server is idle meanwhile, and no other uploader may run.
    """
    columns = (
        FigureColumn("ours, texts/s", "ours"),
        FigureColumn("bare PUTs, texts/s", "bare"),
        FigureColumn("ours / bare", "ratio", ".2f"),
    )
    table = FigureTable("Uploads", ("Argilla", "round"), columns)
    workspace = f"bench_{uuid.uuid4().hex[:8]}"
    medians = [_add_rounds(table, stack, workspace, processes) for processes in (1, 2)]
    table.add_row("", "", f"{medians[1] / medians[0]:.2f}", "", "", end_section=True)
    table.caption = "Last line: ours with two server processes of Argilla, by ours with one."
    return table


def _add_rounds(table: FigureTable, stack: RunningStack, workspace: str, processes: int) -> float:
    samples = []
    with _serving_argilla(stack, workspace, processes) as way, _uploading(stack, way):
        _measure_round(stack, way)  # everything is slower the first time
        for number in range(_UPLOAD_ROUNDS):
            # Each goes first in turn: the later work of Argilla and its index slows down the second.
            ours, bare = _measure_round(stack, way, bare_first=number % 2 == 1)
            samples.append({"ours": ours, "bare": bare, "ratio": ours / bare})
            table.add((str(processes), str(number + 1)), samples[-1:])
    table.add((str(processes), "median"), samples)
    table.add_section()
    return median(sample["ours"] for sample in samples)


def _measure_round(stack: RunningStack, way: _Way, bare_first: bool = False) -> tuple[float, float]:
    """Return texts per second, ours and bare."""
    texts = [_text(number) for number in range(_UPLOADED_TEXTS)]
    bare_seconds = asyncio.run(_put_all(stack, way, texts)) if bare_first else 0
    our_seconds = _upload(stack.database_url, texts)
    bare_seconds = bare_seconds or asyncio.run(_put_all(stack, way, texts))
    return _UPLOADED_TEXTS / our_seconds, _UPLOADED_TEXTS / bare_seconds


@contextmanager
def _serving_argilla(stack: RunningStack, workspace: str, processes: int) -> Iterator[_Way]:
    """Run a server of the stack's Argilla with that number of processes."""
    context = stack.stack.context
    with reserved_ports(1) as [port]:
        name = f"argilla_bench_{processes}"
        server = GuardedProcess(name, server_command(context, name, port, processes), context.log(name))
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ok(f"{url}/api/v1/me", {"X-Argilla-Api-Key": stack.argilla_api_key})
            yield _Way(processes, url, workspace)
        finally:
            server.stop()


@contextmanager
def _uploading(stack: RunningStack, way: _Way) -> Iterator[None]:
    """Run an uploader without sweeps: they load Argilla, and the bare loop has none."""
    with reserved_ports(1) as [port]:
        env = stack.env | {
            "ARGILLA_URL": way.argilla_url,
            "ARGILLA_WORKSPACE": way.workspace,
            "UPLOADER_PORT": str(port),
            "UPLOAD_CONNECTIONS": str(way.processes),
            "UPLOAD_INTERVAL_SECONDS": "0.1",
            "SWEEP_INTERVAL_SECONDS": "3600",
        }
        command = Command([sys.executable, "-m", "uploader"], env, _PROJECT, grace_seconds=20)
        uploader = GuardedProcess("bench_uploader", command, stack.stack.context.log("bench_uploader"))
        try:
            _wait_until_ok(f"http://127.0.0.1:{port}/readyz", {})
            yield
        finally:
            uploader.stop()


def _wait_until_ok(url: str, headers: dict[str, str]) -> None:
    if not holds_within(_START_SECONDS, lambda: is_ok(url, headers)):
        raise RuntimeError(f"{url} is not ready")


def _text(number: int) -> PendingText:
    words = " ".join(random.choices(_WORDS, k=20))  # noqa: S311 - texts of realistic lengths, no secret
    text = f"{words} {uuid.uuid4().hex}/{number}"
    id_ = text_id(DEFAULT_DATASET, text)
    return PendingText(id_, text, "toxic", 0.5, "bench", None, {}, {}, received_at=datetime.now(UTC))


def _upload(database_url: str, texts: list[PendingText]) -> float:
    """Insert the texts and wait until the uploader has uploaded them; return the seconds."""
    with psycopg.connect(database_url) as connection:
        connection.cursor().executemany(_INSERT, [(text.id, DEFAULT_DATASET, text.text) for text in texts])
    started = time.perf_counter()
    waits = "select exists (select from texts where status <> 'uploaded')"
    with psycopg.connect(database_url, autocommit=True) as connection:
        while connection.execute(waits).fetchone() == (True,):
            time.sleep(0.05)
    return time.perf_counter() - started


async def _put_all(stack: RunningStack, way: _Way, texts: list[PendingText]) -> float:
    """PUT the same texts into another dataset, with one loop for each process of Argilla; return the seconds."""
    settings = ArgillaSettings(url=way.argilla_url, api_key=SecretStr(stack.argilla_api_key))
    async with make_http_client(settings, _TIMEOUT_SECONDS) as http:
        argilla = Argilla(http)
        prepared = await prepare(argilla, way.workspace, "bare", _DEFINITION)
        records = [to_record(text, prepared.question_id, _DEFINITION.labels) for text in texts]
        batches = iter(records[i : i + MAX_SEARCH_TERMS] for i in range(0, len(records), MAX_SEARCH_TERMS))
        started = time.perf_counter()
        loops = [_put_batches(argilla, prepared.dataset_id, batches) for _ in range(way.processes)]
        await asyncio.gather(*loops)
        return time.perf_counter() - started


async def _put_batches(argilla: Argilla, dataset_id: uuid.UUID, batches: Iterator[list[dict[str, Any]]]) -> None:
    for batch in batches:
        await argilla.put_records(dataset_id, batch)
