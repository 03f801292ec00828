"""Shows the start of the stack: a live table on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Iterable
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

State = Literal["waiting", "working", "ready", "failed", "stopping", "stopped"]
_PLAIN_PAUSE_SECONDS = 2
_COLOURS: dict[State, str] = {
    "waiting": "dim",
    "working": "yellow",
    "ready": "green",
    "failed": "red",
    "stopping": "yellow",
    "stopped": "dim",
}


class Display:
    """Shows the progress of a stack. This one shows nothing, for tests."""

    def begin(self, names: Iterable[str]) -> None:
        """Begin to start or stop these parts."""

    def update(self, name: str, state: State, detail: str = "") -> None:
        """Show the new state of a part."""

    def end(self) -> None:
        """End the starting or stopping; further lines are plain."""

    def say(self, text: str) -> None:
        """Print a separate line."""


class _Lines(Display):
    """One line for each change; of a step's own reports, one in a few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_at = time.monotonic()
        self._said_at: dict[str, float] = {}

    def begin(self, names: Iterable[str]) -> None:
        self._began_at = time.monotonic()

    def update(self, name: str, state: State, detail: str = "") -> None:
        now = time.monotonic()
        if state == "working" and detail and now - self._said_at.get(name, 0) < _PLAIN_PAUSE_SECONDS:
            return
        self._said_at[name] = now
        self.say(f"{now - self._began_at:5.1f} s  {name}: {detail or state}")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _LiveTable(_Lines):
    """A table that is updated while the stack starts; it stays on the screen, and lines go above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._rows: dict[str, tuple[State, str]] = {}
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._changing = threading.Lock()
        self._live: Live | None = None

    def begin(self, names: Iterable[str]) -> None:
        self._rows = dict.fromkeys(names, ("waiting", ""))
        self._began, self._took = {}, {}
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=8)
        self._live.start()

    def update(self, name: str, state: State, detail: str = "") -> None:
        with self._changing:
            self._rows[name] = (state, detail)
            if state in {"working", "stopping"}:
                self._began.setdefault(name, time.monotonic())
            elif name in self._began:
                self._took[name] = time.monotonic() - self._began[name]

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        with self._changing:
            for name, (state, detail) in self._rows.items():
                colour = _COLOURS[state]
                table.add_row(name, f"[{colour}]{state}[/]", self._seconds(name), escape(detail))
        return table

    def _seconds(self, name: str) -> str:
        if name in self._took:
            return f"{self._took[name]:.1f} s"
        return f"{time.monotonic() - self._began[name]:.0f} s" if name in self._began else ""


def display_for(console: Console) -> Display:
    """Return the table on a terminal, plain lines elsewhere."""
    return _LiveTable(console) if console.is_terminal else _Lines(console)
