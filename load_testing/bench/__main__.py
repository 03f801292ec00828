"""`make bench`."""

import argparse
import os
from collections.abc import Callable

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from core.migrate import migrate
from core.settings import DatabaseSettings
from load_testing.bench import label_lag, shards, upload_rates
from load_testing.bench.ingestion import (
    behind_nginx,
    beside_bulk,
    bulk_uploads,
    held_queue,
    single_texts,
    table_sizes,
)
from load_testing.bench.serving import (
    row_bytes,
    serving_changes,
    serving_exports,
    serving_pages,
    serving_peers,
    serving_replica,
    serving_search,
    serving_snapshots,
)
from local_stack.testing import running_stack

# Of each half of a round. The issue of a held transaction grows with time: 180 shows it whole.
_QUEUE_SECONDS = float(os.environ.get("BENCH_QUEUE_SECONDS", "20"))

# What only needs Postgres; what needs Argilla too; what needs the whole platform.
_OF_INTAKE: dict[str, Callable[[str, int], Table]] = {
    "single": lambda url, _: single_texts.measure(url),
    "bulk": lambda url, _: bulk_uploads.measure(url),
    "beside": lambda url, _: beside_bulk.measure(url),
    "queue": lambda url, _: held_queue.measure(url, seconds=_QUEUE_SECONDS),
    "sizes": table_sizes.measure,
}
# Each of these fills a Postgres of its own.
_OF_LABELS: dict[str, Callable[[str, int], Table]] = {
    "replica": serving_replica.measure,
    "exports": serving_exports.measure,
    "nginx": behind_nginx.measure,
    "bytes": row_bytes.measure,
}
# What needs no stack: each reads a file that it makes.
_OF_FILES: dict[str, Callable[[int], Table]] = {
    "serving": serving_pages.measure,
    "peers": serving_peers.measure,
    "changes": serving_changes.measure,
    "search": serving_search.measure,
    "snapshots": serving_snapshots.measure,
    "shards": shards.measure,
}
_ALL = (*_OF_INTAKE, *_OF_LABELS, *_OF_FILES, "uploads", "lag")
_ARGILLA = {"postgres", "redis", "opensearch", "argilla"}


def main() -> None:
    """Print the tables, each on a stack of its own kind."""
    arguments = _parse_arguments()
    console = Console()
    chosen = arguments.only or _ALL
    if intake := [name for name in chosen if name in _OF_INTAKE]:
        with running_stack({"postgres"}) as stack:
            migrate(DatabaseSettings(url=SecretStr(stack.database_url)))
            for name in intake:
                console.print(_OF_INTAKE[name](stack.database_url, arguments.rows))
    for name in chosen:
        if name in _OF_LABELS:
            with running_stack({"postgres"}) as stack:
                migrate(DatabaseSettings(url=SecretStr(stack.database_url)))
                console.print(_OF_LABELS[name](stack.database_url, arguments.rows))
        if name in _OF_FILES:
            console.print(_OF_FILES[name](arguments.rows))
    if "uploads" in chosen:
        with running_stack(_ARGILLA) as stack:
            migrate(DatabaseSettings(url=SecretStr(stack.database_url)))
            console.print(upload_rates.measure(stack))
    if "lag" in chosen:
        with running_stack() as stack:
            console.print(label_lag.measure(stack))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_testing.bench")
    parser.add_argument(
        "--rows",
        type=int,
        default=1_000_000,
        help="how full a table to measure with: 10000000 takes five minutes and 10 GB of disk more",
    )
    parser.add_argument("--only", nargs="+", choices=_ALL, help="these tables, not all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
