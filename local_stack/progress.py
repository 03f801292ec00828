"""Shows the start of the stack: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable
from typing import Literal

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

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
        self._progress = Progress(console=console)

    def begin(self, names: Iterable[str]) -> None:
        state = TextColumn("[{task.fields[colour]}]{task.fields[state]}")
        detail = TextColumn("{task.fields[detail]}", markup=False)
        columns = (TextColumn("{task.description}", markup=False), state, TimeElapsedColumn(), detail)
        self._progress = Progress(*columns, console=self._console)
        self._tasks = {name: self._progress.add_task(name, start=False, total=None) for name in names}
        for name in names:
            self._show(name, "waiting", "")
        self._progress.start()

    def update(self, name: str, state: State, detail: str = "") -> None:
        task = self._tasks[name]
        if state in {"working", "stopping"}:
            self._progress.start_task(task)
        else:
            self._progress.stop_task(task)
        self._show(name, state, detail)

    def _show(self, name: str, state: State, detail: str) -> None:
        self._progress.update(self._tasks[name], state=state, colour=_COLOURS[state], detail=detail)

    def end(self) -> None:
        self._progress.stop()


def display_for(console: Console) -> Display:
    """Return the table on a terminal, plain lines elsewhere."""
    return _LiveTable(console) if console.is_terminal else _Lines(console)
