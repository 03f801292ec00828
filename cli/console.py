"""Output of the commands: results on standard output, progress and errors on standard error.

Texts, names and error messages come from other people and servers. Both consoles therefore escape control
characters and ignore markup. Line ends stay, since messages have several lines; `printable` escapes them in values
that must stay on one line.
"""

import json
import os
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table


def printable(value: str) -> str:
    """Return a foreign text with all control characters escaped, line ends included."""
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def _on_lines(value: str) -> str:
    return "\n".join(map(printable, value.split("\n")))


# Width of what another program reads: each row on a line.
_PIPED_CHARACTERS = 200


class SafeConsole(Console):
    """A console that escapes control characters, bidirectional controls among them, and takes no markup."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not (stderr or self.is_terminal or "COLUMNS" in os.environ):
            self.width = _PIPED_CHARACTERS

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape strings before their width is measured."""
        return super().render_str(_on_lines(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Escape all other output, except rich's own control codes."""
        for segment in super().render(renderable, options):
            is_plain = segment.control or segment.text.isprintable()
            yield segment if is_plain else Segment(_on_lines(segment.text), segment.style)


out = SafeConsole()
err = SafeConsole(stderr=True)

# Length of a text in a list.
SHORT_CHARACTERS = 60
_UUID_CHARACTERS = 36

AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def fail(message: str) -> NoReturn:
    """Print the reason for a failure, and end the command with exit code 1."""
    err.print(message, style="red")
    raise typer.Exit(1)


def byte_progress() -> "Progress":
    """Return a progress display for tasks that are measured in bytes."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    return Progress(*columns, TransferSpeedColumn(), TimeElapsedColumn(), console=err)


def list_table(*titles: str) -> "Table":
    """Return a table that cuts no value: ids stay whole, to be copied, and other words break where they must."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in titles:
        is_id = title == "id"
        table.add_column(title, overflow="fold", no_wrap=is_id, min_width=_UUID_CHARACTERS if is_id else None)
    return table


def plain(value: str, limit: int | None = None) -> Text:
    """Return a foreign text for a table: without control characters and markup, cut to `limit` characters."""
    shown = printable(value)
    return Text(shown if limit is None or len(shown) <= limit else f"{shown[: limit - 1]}…")


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as ASCII JSON, with control characters escaped."""
    # The only control character that JSON does not escape.
    typer.echo(json.dumps(value, indent=indent, default=_as_json).replace("\x7f", "\\u007f"))


def _as_json(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"JSON has nothing for {type(value).__name__}")
