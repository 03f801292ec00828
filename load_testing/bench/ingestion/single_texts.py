"""Single POSTs: ours against the same checks without a database, and against one commit a request."""

import statistics
from contextlib import ExitStack

import orjson
from rich.table import Table

from load_testing.bench.comments import make_submissions
from load_testing.bench.http_load import Load, post_all
from load_testing.bench.servers import api_environment, serving, serving_peer

_CLIENTS = (1, 16, 64, 256)
_TEXTS = 4000
_TEXTS_OF_ONE_CLIENT = 800
_ROUNDS = 3


def measure(database_url: str) -> Table:
    """Measure in turns, round by round, so that the machine's moods meet all alike; shows the medians."""
    env = api_environment(database_url)
    with ExitStack() as stack:
        urls = {
            "ours": stack.enter_context(serving(["ingestion_api"], env)).url,
            "no-op": stack.enter_context(serving_peer("no_op", env)).url,
            "one commit each": stack.enter_context(serving_peer("commit_each", env)).url,
        }
        table = Table("clients", "what", "texts/s", "p50 ms", "p99 ms", "ours / it", title="Single POSTs")
        for clients in _CLIENTS:
            _add_rows(table, clients, _measure_round(urls, clients))
    return table


def _measure_round(urls: dict[str, str], clients: int) -> dict[str, list[Load]]:
    count = _TEXTS_OF_ONE_CLIENT if clients == 1 else _TEXTS
    loads: dict[str, list[Load]] = {name: [] for name in urls}
    for _ in range(_ROUNDS):
        for name, url in urls.items():
            loads[name].append(post_all(f"{url}/texts", list(map(orjson.dumps, make_submissions(count))), clients))
    return loads


def _add_rows(table: Table, clients: int, loads: dict[str, list[Load]]) -> None:
    ours = loads["ours"]
    for name, measured in loads.items():
        ratios = [
            mine.requests_per_second / other.requests_per_second
            for mine, other in zip(ours, measured, strict=True)
        ]
        table.add_row(
            str(clients),
            name,
            f"{statistics.median(load.requests_per_second for load in measured):,.0f}",
            f"{statistics.median(load.quantile_ms(0.5) for load in measured):.2f}",
            f"{statistics.median(load.quantile_ms(0.99) for load in measured):.2f}",
            f"{statistics.median(ratios):.2f}",
        )
    table.add_section()
