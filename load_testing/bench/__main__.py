"""`make bench`."""

from pydantic import SecretStr
from rich.console import Console

from core.migrate import migrate
from core.settings import DatabaseSettings
from load_testing.bench import single_texts
from local_stack.testing import running_stack


def main() -> None:
    """Print the tables."""
    console = Console()
    with running_stack({"postgres"}) as stack:
        migrate(DatabaseSettings(url=SecretStr(stack.database_url)))
        console.print(single_texts.measure(stack.database_url))


if __name__ == "__main__":
    main()
