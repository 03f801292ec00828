"""What the commands print with: results on standard output, progress and errors on standard error."""

from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

out = Console()
err = Console(stderr=True)

# Of a text in a list.
SHORT_CHARACTERS = 60


def fail(message: str) -> NoReturn:
    """Say why the command cannot go on, and end it with exit code 1."""
    err.print(message, style="red", markup=False, highlight=False)
    raise typer.Exit(1)


def printable(value: str) -> str:
    """Return what others wrote with everything escaped that a terminal would act on, line ends included."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def plain(value: str, limit: int | None = None) -> Text:
    """Return what others wrote as it may stand in a table: no control characters, no markup."""
    shown = printable(value)
    return Text(shown if limit is None or len(shown) <= limit else f"{shown[: limit - 1]}…")
