"""What the commands print with: results on standard output, progress and errors on standard error."""

from typing import NoReturn

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)


def fail(message: str) -> NoReturn:
    """Say why the command cannot go on, and end it with exit code 1."""
    err.print(message, style="red", markup=False, highlight=False)
    raise typer.Exit(1)
