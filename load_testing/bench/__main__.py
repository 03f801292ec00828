"""`make bench`: prints the chosen tables, each on a new stack with the components that it needs."""

import argparse
from collections.abc import Callable, Set

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from core.migrate import migrate
from core.settings import DatabaseSettings
from load_testing.bench import (
    ingestion_rates,
    replicas,
    serving_files,
    serving_pages,
    uploader_rates,
)
from local_stack.stack import EVERYTHING
from local_stack.testing import RunningStack, running_stack

_POSTGRES = {"postgres"}
_ARGILLA = {"postgres", "redis", "opensearch", "argilla"}
_OF_STACKS: dict[str, tuple[Set[str], Callable[[RunningStack, int], Table]]] = {
    "single": (_POSTGRES, ingestion_rates.measure_single),
    "bulk": (_POSTGRES, ingestion_rates.measure_bulk),
    "beside": (_POSTGRES, ingestion_rates.measure_beside),
    "queue": (_POSTGRES, uploader_rates.measure_queue),
    "replica": (_POSTGRES, replicas.measure_replica),
    "exports": (_POSTGRES, serving_files.measure_exports),
    "uploads": (_ARGILLA, uploader_rates.measure_uploads),
    "lag": (EVERYTHING, uploader_rates.measure_lag),
}
# These need no stack: each reads a file that it makes.
_OF_FILES: dict[str, Callable[[int], Table]] = {
    "serving": serving_pages.measure_pages,
    "peers": serving_pages.measure_peers,
    "changes": replicas.measure_changes,
    "search": replicas.measure_search,
    "snapshots": serving_files.measure_snapshots,
}
_ALL = (*_OF_STACKS, *_OF_FILES)


def main() -> None:
    """Print the tables."""
    arguments = _parse_arguments()
    for name in arguments.only or _ALL:
        if name in _OF_FILES:
            Console().print(_OF_FILES[name](arguments.rows))
        else:
            Console().print(_measure_on_stack(name, arguments.rows))


def _measure_on_stack(name: str, rows: int) -> Table:
    components, measure = _OF_STACKS[name]
    with running_stack(components) as stack:
        migrate(DatabaseSettings(url=SecretStr(stack.database_url)))
        return measure(stack, rows)


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
