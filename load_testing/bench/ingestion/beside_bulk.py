"""Single POSTs while a bulk upload runs, against quiet ones. Goal: p99 under three times the quiet one."""

import statistics
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat

import orjson
from rich.table import Table

from load_testing.bench.comments import make_submissions
from load_testing.bench.http_load import Load, post_all
from load_testing.bench.ingestion.bulk_bodies import FORMATS
from load_testing.bench.ingestion.bulk_load import upload
from load_testing.bench.servers import api_environment, serving

_CLIENTS = (1, 16)
_QUIET_TEXTS = 2000
_BULK_ROWS = 200_000
_ROUNDS = 3


def measure(database_url: str) -> Table:
    """Measure in turns, each client waiting for its answer before it sends again; shows the medians."""
    table = Table("clients", "while", "texts/s", "p50 ms", "p99 ms", "p99 / quiet", title="Beside a bulk upload")
    with serving(["ingestion_api"], api_environment(database_url)) as server:
        for clients in _CLIENTS:
            loads = [(_quiet(server.url, clients), _beside_bulk(server.url, clients)) for _ in range(_ROUNDS)]
            _add_rows(table, clients, loads)
    return table


def _quiet(url: str, clients: int) -> Load:
    return post_all(f"{url}/texts", map(orjson.dumps, make_submissions(_QUIET_TEXTS)), clients)


def _beside_bulk(url: str, clients: int) -> Load:
    body = FORMATS["NDJSON"](list(make_submissions(_BULK_ROWS)))
    with ThreadPoolExecutor(1) as thread:
        bulk = thread.submit(upload, url, body)
        load = post_all(f"{url}/texts", _bodies_until(bulk), clients)
        bulk.result()
    return load


def _bodies_until(done: Future[float]) -> Iterator[bytes]:
    for submission in chain.from_iterable(make_submissions(_QUIET_TEXTS) for _ in repeat(None)):
        if done.done():
            return
        yield orjson.dumps(submission)


def _add_rows(table: Table, clients: int, loads: list[tuple[Load, Load]]) -> None:
    ratios = [busy.quantile_ms(0.99) / quiet.quantile_ms(0.99) for quiet, busy in loads]
    for name, measured, ratio in (
        ("quiet", [quiet for quiet, _ in loads], 1.0),
        ("NDJSON comes in", [busy for _, busy in loads], statistics.median(ratios)),
    ):
        table.add_row(
            str(clients),
            name,
            f"{statistics.median(load.requests_per_second for load in measured):,.0f}",
            f"{statistics.median(load.quantile_ms(0.5) for load in measured):.2f}",
            f"{statistics.median(load.quantile_ms(0.99) for load in measured):.2f}",
            f"{ratio:.2f}",
        )
    table.add_section()
