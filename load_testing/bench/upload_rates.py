"""Uploads into Argilla: ours beside a bare loop of PUTs with the same records.

With one server process of Argilla and one connection, then with two of each over the same data.
"""

import asyncio
import random
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr
from rich.table import Table

from core.datasets import DEFAULT_DATASET, load_datasets
from core.settings import ArgillaSettings
from core.text_identity import text_id
from load_testing.targets import holds_within, is_ok
from local_stack.components.argilla import server_command
from local_stack.ports import reserved_ports
from local_stack.processes.guarded import Command, GuardedProcess
from local_stack.testing import RunningStack
from uploader.argilla.client import Argilla, make_http_client
from uploader.argilla.records import PendingText, to_record
from uploader.argilla.setup import prepare
from uploader.settings import MAX_SEARCH_TERMS

_ROUNDS = 4
_START_SECONDS = 120
_TIMEOUT_SECONDS = 120
_PROJECT = Path(__file__).parents[2]
_DEFINITION = load_datasets(None)[DEFAULT_DATASET]
_WORDS = ["you", "are", "the", "map", "update", "idiot", "thanks", "nobody", "better", "again"]

_INSERT = """
insert into texts (id, dataset, text, claimed_label, score, source) values (%s, %s, %s, 'toxic', 0.5, 'bench')
"""


@dataclass(frozen=True)
class _Way:
    """An Argilla of so many server processes, and an uploader with as many connections."""

    processes: int
    argilla_url: str
    workspace: str


def measure(stack: RunningStack, texts: int = 2000) -> Table:
    """Measure in turns, round by round; so many texts go each way in each round.

    Needs what the stack's Argilla needs; its own server had better rest, and no other uploader may run.
    """
    table = Table("Argilla", "round", "ours, texts/s", "bare PUTs, texts/s", "ours / bare", title="Uploads")
    workspace = f"bench_{uuid.uuid4().hex[:8]}"
    medians = [_add_rows(table, stack, workspace, processes, texts) for processes in (1, 2)]
    table.add_row("", "", f"{medians[1] / medians[0]:.2f}", "", "", end_section=True)
    table.caption = "Last line: ours with two server processes of Argilla, by ours with one."
    return table


def _add_rows(table: Table, stack: RunningStack, workspace: str, processes: int, texts: int) -> float:
    ours, ratios = [], []
    with _serving_argilla(stack, workspace, processes) as way, _uploading(stack, way):
        _measure_round(stack, way, texts)  # everything is slower the first time
        for n in range(_ROUNDS):
            # Either goes first in turn: what Argilla and its index do afterwards meets the second.
            mine, bare = _measure_round(stack, way, texts, bare_first=n % 2 == 1)
            ours.append(mine)
            ratios.append(mine / bare)
            table.add_row(str(processes), str(n + 1), f"{mine:.0f}", f"{bare:.0f}", f"{mine / bare:.2f}")
    median, ratio = statistics.median(ours), statistics.median(ratios)
    table.add_row(str(processes), "median", f"{median:.0f}", "", f"{ratio:.2f}", end_section=True)
    return median


def _measure_round(stack: RunningStack, way: _Way, count: int, bare_first: bool = False) -> tuple[float, float]:
    """Return texts a second, ours and bare."""
    texts = [_text(i) for i in range(count)]
    bare_seconds = asyncio.run(_put_all(stack, way, texts)) if bare_first else 0
    our_seconds = _upload(stack.database_url, texts)
    bare_seconds = bare_seconds or asyncio.run(_put_all(stack, way, texts))
    return count / our_seconds, count / bare_seconds


@contextmanager
def _serving_argilla(stack: RunningStack, workspace: str, processes: int) -> Iterator[_Way]:
    """Run a server of the stack's Argilla, of so many processes."""
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
    """Run an uploader that does not sweep: that would take time of Argilla's that the bare loop has to itself."""
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
    """Have the uploader upload the texts; return how many seconds it took."""
    with psycopg.connect(database_url) as connection:
        connection.cursor().executemany(_INSERT, [(text.id, DEFAULT_DATASET, text.text) for text in texts])
    started = time.perf_counter()
    waits = "select exists (select from texts where status <> 'uploaded')"
    with psycopg.connect(database_url, autocommit=True) as connection:
        while connection.execute(waits).fetchone() == (True,):
            time.sleep(0.05)
    return time.perf_counter() - started


async def _put_all(stack: RunningStack, way: _Way, texts: list[PendingText]) -> float:
    """PUT the same texts into another dataset, in as many loops as Argilla has processes; return the seconds."""
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
