"""`make bench`: prints the chosen tables, each on the components that it needs."""

import argparse
from collections.abc import Callable

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from core.migrate import migrate
from core.settings import DatabaseSettings
from load_testing.bench import (
    ingestion_rates,
    replicas,
    scaling,
    serving_files,
    serving_pages,
    shards,
    uploader_rates,
)
from local_stack.testing import RunningStack, running_stack

OfStack = Callable[[RunningStack, int], Table]

# These share one Postgres.
_OF_INTAKE: dict[str, OfStack] = {
    "single": ingestion_rates.measure_single,
    "bulk": ingestion_rates.measure_bulk,
    "beside": ingestion_rates.measure_beside,
    "queue": uploader_rates.measure_queue,
    "sizes": ingestion_rates.measure_sizes,
}
# Each of these fills a new Postgres.
_OF_LABELS: dict[str, OfStack] = {
    "replica": replicas.measure_replica,
    "exports": serving_files.measure_exports,
    "nginx": scaling.measure_nginx,
    "bytes": scaling.measure_bytes,
}
# These need no stack: each reads a file that it makes.
_OF_FILES: dict[str, Callable[[int], Table]] = {
    "serving": serving_pages.measure_pages,
    "peers": serving_pages.measure_peers,
    "changes": replicas.measure_changes,
    "search": replicas.measure_search,
    "snapshots": serving_files.measure_snapshots,
    "shards": shards.measure_shards,
}
_OF_ARGILLA: dict[str, OfStack] = {"uploads": uploader_rates.measure_uploads}
_OF_EVERYTHING: dict[str, OfStack] = {"lag": uploader_rates.measure_lag}
_ALL = (*_OF_INTAKE, *_OF_LABELS, *_OF_FILES, *_OF_ARGILLA, *_OF_EVERYTHING)
_POSTGRES = {"postgres"}
_ARGILLA = {"postgres", "redis", "opensearch", "argilla"}


def main() -> None:
    """Print the tables."""
    arguments = _parse_arguments()
    chosen, rows = arguments.only or _ALL, arguments.rows
    _measure([name for name in chosen if name in _OF_INTAKE], _OF_INTAKE, rows, _POSTGRES)
    for name in chosen:
        if name in _OF_LABELS:
            _measure([name], _OF_LABELS, rows, _POSTGRES)
        if name in _OF_FILES:
            Console().print(_OF_FILES[name](rows))
    _measure([name for name in chosen if name in _OF_ARGILLA], _OF_ARGILLA, rows, _ARGILLA)
    _measure([name for name in chosen if name in _OF_EVERYTHING], _OF_EVERYTHING, rows, None)


def _measure(names: list[str], tables: dict[str, OfStack], rows: int, components: set[str] | None) -> None:
    """Print these tables on one new stack; `components` None means all of them."""
    if not names:
        return
    with running_stack(components) if components else running_stack() as stack:
        if components:  # a whole stack migrates by itself
            migrate(DatabaseSettings(url=SecretStr(stack.database_url)))
        for name in names:
            Console().print(tables[name](stack, rows))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_testing.bench")
    parser.add_argument(
        "--rows",
        type=int,
        default=1_000_000,
        help="number of texts in the table or the replica; 10000000 needs five minutes and 10 GB of disk more",
    )
    parser.add_argument("--only", nargs="+", choices=_ALL, help="these tables, not all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
