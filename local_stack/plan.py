"""What a stack is made of: steps that end, and services that keep running."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local_stack.credentials import Credentials
from local_stack.process import Command
from local_stack.settings import StackSettings


@dataclass(frozen=True)
class Context:
    """What every step and service works with."""

    settings: StackSettings
    credentials: Credentials
    stop_asked: threading.Event
    # The descriptor of the stack's lock, for the guards to hold.
    lock: int
    # Shows what a step is doing: (its name, text).
    show: Callable[[str, str], None]

    def directory(self, name: str) -> Path:
        """Return a directory of that name in DATA_DIR; made if it is not there."""
        path = self.settings.data_dir / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        """Return the log file of a step or service."""
        return self.settings.logs_dir / f"{name}.log"


@dataclass(frozen=True)
class Step:
    """Something to do once at each start."""

    name: str
    run: Callable[[Context], None]
    needs: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Service:
    """A program to keep running.

    `needs` must be ready before it starts; `also` belongs to the stack whenever this does, but is not waited for;
    `stops_before` (as well as `needs`) is still there while this stops.
    """

    name: str
    command: Callable[[Context], Command]
    is_ready: Callable[[Context, int], bool]
    needs: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    stops_before: frozenset[str] = frozenset()
    start_seconds: float = 120
