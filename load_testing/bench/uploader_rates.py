"""The uploader's benchmarks: claims from the queue, uploads into Argilla, and the lag of labels.

**The queue** is measured while a REPEATABLE READ transaction (a backup, a report) holds an old snapshot. Postgres
cannot remove dead rows then, and each claim passes the index entries of claimed rows. A second Postgres gets the
same load without such a transaction, batch by batch in turns. Each order of the queue is a dataset.

**Uploads** are compared with a plain loop of PUTs with the same records: with one server process of Argilla and
one connection, then with two of each over the same data.

**The lag** is the time from an answer in Argilla to its label at the serving API.
"""

import asyncio
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import httpx
import psycopg
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.connections import make_async_engine
from core.datasets import DEFAULT_DATASET, UploadOrder, load_datasets
from core.migrate import migrate
from core.settings import ArgillaSettings, DatabaseSettings
from core.text_identity import text_id
from load_testing.bench.harness import FigureColumn, FigureTable, Sample, running
from load_testing.bench.ingestion_rates import make_submissions
from load_testing.reports.summaries import percentiles
from load_testing.targets import argilla_client, holds_within, is_ok
from local_stack.components.argilla import server_command
from local_stack.components.postgres import argilla_database_url
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
_PARTS = 3  # of the time for an order, each a line of the table
_BATCH_TEXTS = 250
_BATCH_BYTES = 4_194_304
_BACKLOG_TEXTS = 20_000
_LEASE_SECONDS = 120
_GOAL = 0.7
# Otherwise the stack's Postgres ends an idle transaction.
_ENDLESS = "-c idle_in_transaction_session_timeout=0 -c transaction_timeout=0"
_ARRIVE = text("""
insert into texts (id, dataset, text, score, source)
select gen_random_uuid(), :dataset, 'text ' || n, random(), 'held-queue' from generate_series(1, :count) as n
""")

_UPLOADED_TEXTS = 2000
_UPLOAD_ROUNDS = 4
_TIMEOUT_SECONDS = 120
_DEFINITION = load_datasets(None)[DEFAULT_DATASET]
_INSERT = """
insert into texts (id, dataset, text, claimed_label, score, source) values (%s, %s, %s, 'toxic', 0.5, 'bench')
"""

_ANSWERS = 200
_ANSWERS_PER_SECOND = 10
_POLL_SECONDS = 0.02
_LAST_SECONDS = 120


@dataclass
class _Queue:
    """The queue of one database in an order, with the time and the number of its claims."""

    engine: AsyncEngine
    order: UploadOrder
    start: QueueStart = field(default_factory=QueueStart)
    seconds: float = 0
    claimed: int = 0

    async def arrive(self, count: int) -> None:
        """Insert texts."""
        async with self.engine.begin() as connection:
            await connection.execute(_ARRIVE, {"dataset": self.order, "count": count})

    async def claim(self) -> None:
        """Claim and finish a batch as the uploader does, without Argilla."""
        began_at = time.monotonic()
        claim = uuid.uuid4()
        async with self.engine.begin() as connection:
            await self.start.return_stale(connection, self.order)
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
        for order in (UploadOrder.OLDEST, UploadOrder.NEWEST, UploadOrder.UNCERTAIN):
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


class _Way(NamedTuple):
    processes: int
    argilla_url: str
    workspace: str
    texts: int  # that a round uploads


def measure_uploads(stack: RunningStack, rows: int) -> FigureTable:
    """Upload 2,000 texts, or `rows`, each way in each round, in turns.

    Needs the components that Argilla needs. Its own server is idle meanwhile, and no other uploader may run.
    """
    columns = (
        FigureColumn("ours, texts/s", "ours"),
        FigureColumn("bare PUTs, texts/s", "bare"),
        FigureColumn("ours / bare", "ratio", ".2f"),
    )
    table = FigureTable("Uploads", ("Argilla", "round"), columns)
    texts = min(_UPLOADED_TEXTS, rows)
    medians = [_add_rounds(table, stack, processes, texts) for processes in (1, 2)]
    table.add_row("", "", f"{medians[1] / medians[0]:.2f}", "", "", end_section=True)
    table.caption = "Last line: ours with two server processes of Argilla, by ours with one."
    return table


def _add_rounds(table: FigureTable, stack: RunningStack, processes: int, texts: int) -> float:
    samples = []
    with _uploading(stack, "bench", processes, texts) as way:
        _measure_round(stack, way)  # everything is slower the first time
        for number in range(_UPLOAD_ROUNDS):
            # They take turns to go first: the later work of Argilla and its index slows down the second.
            samples.append(_measure_round(stack, way, bare_first=number % 2 == 1))
            table.add((str(processes), str(number + 1)), samples[-1:])
    table.add((str(processes), "median"), samples)
    table.add_section()
    return median(sample["ours"] for sample in samples)


def _measure_round(stack: RunningStack, way: _Way, bare_first: bool = False) -> Sample:
    """Return texts per second, ours and bare."""
    now = datetime.now(UTC)
    texts = [
        PendingText(
            text_id(DEFAULT_DATASET, made["text"]), made["text"], "toxic", 0.5, "bench", None, {}, {}, now, 0
        )
        for made in make_submissions(way.texts)
    ]
    bare_seconds = asyncio.run(_put_all(stack, way, texts)) if bare_first else 0
    our_seconds = _upload(stack.database_url, texts)
    bare_seconds = bare_seconds or asyncio.run(_put_all(stack, way, texts))
    ours, bare = way.texts / our_seconds, way.texts / bare_seconds
    return {"ours": ours, "bare": bare, "ratio": ours / bare}


@contextmanager
def _uploading(stack: RunningStack, workspace: str, processes: int, texts: int) -> Iterator[_Way]:
    """Run a server of the stack's Argilla with that number of processes, and an uploader.

    The uploader sweeps nothing: sweeps load Argilla, and the bare loop has none.
    """
    with reserved_ports(2) as [argilla_port, port]:
        argilla_url = f"http://127.0.0.1:{argilla_port}"
        server = server_command(stack.stack.context, f"argilla_bench_{processes}", argilla_port, processes)
        headers = {"X-Argilla-Api-Key": stack.argilla_api_key}
        settings = {
            "ARGILLA_URL": argilla_url,
            "ARGILLA_WORKSPACE": workspace,
            "UPLOADER_PORT": str(port),
            "UPLOAD_CONNECTIONS": str(processes),
            "UPLOAD_INTERVAL_SECONDS": "0.1",
            "SWEEP_INTERVAL_SECONDS": "3600",
        }
        is_server_ready = partial(is_ok, f"{argilla_url}/api/v1/me", headers)
        is_ready = partial(is_ok, f"http://127.0.0.1:{port}/readyz")
        with (
            running(list(map(str, server.argv)), is_server_ready, env=server.env, cwd=server.cwd),
            running([sys.executable, "-m", "uploader"], is_ready, env=stack.env | settings),
        ):
            yield _Way(processes, argilla_url, workspace, texts)


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


def measure_lag(stack: RunningStack, _rows: int) -> FigureTable:
    """Answer texts each way, about ten a second; each answer is to another text."""
    title = f"From answer to reader: {_ANSWERS} answers, {_ANSWERS_PER_SECOND}/s"
    columns = [FigureColumn(f"{name} s", name, ".2f") for name in ("p50", "p95", "p99")]
    table = FigureTable(title, ("way",), [*columns, FigureColumn("longest s", "max", ".2f")])
    table.add(("webhooks",), [_measure_lags(stack)])
    stack.stop_component("uploader")
    env = os.environ | stack.env | {"WEBHOOK_URL": "", "LOG_LEVEL": "WARNING"}
    with running([sys.executable, "-m", "uploader"], lambda: True, env=env):
        table.add(("sweeps alone",), [_measure_lags(stack)])
    stack.start_component("uploader")
    return table


def _measure_lags(stack: RunningStack) -> Sample:
    records = _upload_texts(stack)
    seen_at: dict[str, float] = {}
    stop = threading.Event()
    reader = threading.Thread(target=_read, args=(stack.serving_url, seen_at, stop))
    reader.start()
    try:
        answered_at = _answer(stack, records)
        holds_within(_LAST_SECONDS, lambda: answered_at.keys() <= seen_at.keys())
    finally:
        stop.set()
        reader.join()
    lags = percentiles([seen_at[id_] - answered for id_, answered in answered_at.items()])
    return {name: seconds for name, seconds in lags.items() if seconds is not None}


def _read(url: str, seen_at: dict[str, float], stop: threading.Event) -> None:
    """Poll GET /texts, and record when each text appears."""
    with httpx.Client(base_url=url) as client:
        while not stop.wait(_POLL_SECONDS):
            items = client.get("/texts", params={"limit": 1000}).raise_for_status().json()["items"]
            now = time.monotonic()
            for item in items:
                seen_at.setdefault(item["id"], now)


def _upload_texts(stack: RunningStack) -> dict[str, str]:
    """Send texts; return Argilla's ids of their records by ours, as soon as all are uploaded."""
    texts = [made["text"] for made in make_submissions(_ANSWERS)]
    url = f"{stack.ingestion_url}/texts/bulk"
    httpx.post(url, json=[{"text": text} for text in texts], timeout=60).raise_for_status()
    ids = [str(text_id(DEFAULT_DATASET, text)) for text in texts]
    uploaded = "select count(*) from texts where id = any(%s::uuid[]) and status = 'uploaded'"
    with psycopg.connect(stack.database_url, autocommit=True) as ours:
        if not holds_within(_LAST_SECONDS, lambda: ours.execute(uploaded, [ids]).fetchone() == (_ANSWERS,)):
            raise RuntimeError("the texts were not uploaded")
    with psycopg.connect(argilla_database_url(stack.stack.context)) as theirs:
        query = "select external_id, id::text from records where external_id = any(%s)"
        return dict(theirs.execute(query, [ids]).fetchall())


def _answer(stack: RunningStack, records: dict[str, str]) -> dict[str, float]:
    """Answer one record after the other as Argilla's owner; return the time of each acceptance."""
    answered_at = {}
    body = {"status": "submitted", "values": {"label": {"value": "toxic"}}}
    started = time.monotonic()
    with argilla_client(stack.argilla_url, stack.argilla_api_key) as annotator:
        for number, (id_, record_id) in enumerate(records.items()):
            time.sleep(max(0.0, started + number / _ANSWERS_PER_SECOND - time.monotonic()))
            annotator.post(f"records/{record_id}/responses", json=body).raise_for_status()
            answered_at[id_] = time.monotonic()
    return answered_at
