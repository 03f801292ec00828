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


def printable(value: str) -> str:
    """Return what others wrote with everything escaped that a terminal would act on, line ends included."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
