"""`make bench`."""

import argparse

from pydantic import SecretStr
from rich.console import Console

from core.migrate import migrate
from core.settings import DatabaseSettings
from load_testing.bench import beside_bulk, bulk_uploads, single_texts, table_sizes
from local_stack.testing import running_stack


def main() -> None:
    """Print the tables."""
    arguments = _parse_arguments()
    console = Console()
    with running_stack({"postgres"}) as stack:
        url = stack.database_url
        migrate(DatabaseSettings(url=SecretStr(url)))
        console.print(single_texts.measure(url))
        console.print(bulk_uploads.measure(url))
        console.print(beside_bulk.measure(url))
        console.print(table_sizes.measure(url, arguments.rows))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_testing.bench")
    parser.add_argument(
        "--rows",
        type=int,
        default=1_000_000,
        help="how full a table to measure with: 10000000 takes five minutes and 10 GB of disk more",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
