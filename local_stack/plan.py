"""The parts of a stack (steps that end, services that keep running) and the order of their starts and stops."""

import queue
import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from local_stack.data_dir import Credentials
from local_stack.guarded import Command
from local_stack.settings import StackSettings


@dataclass(frozen=True)
class Context:
    """Settings and tools for every step and service."""

    settings: StackSettings
    credentials: Credentials
    stop_asked: threading.Event
    # File descriptor of the stack's lock, which the guards inherit.
    lock: int
    # Shows what a step is doing: (its name, text).
    show: Callable[[str, str], None]

    def directory(self, name: str) -> Path:
        """Return a directory in DATA_DIR; create it unless it exists."""
        path = self.settings.data_dir / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        """Return the log file of a step or service."""
        return self.settings.logs_dir / f"{name}.log"


@dataclass(frozen=True)
class Step:
    """A task that runs once at each start."""

    name: str
    run: Callable[[Context], None]
    needs: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Service:
    """A program to keep running.

    `needs` must be ready before it starts. `also` belongs to the stack whenever this service does, but is not
    waited for. `stops_before` and `needs` still run while this service stops.
    """

    name: str
    command: Callable[[Context], Command]
    is_ready: Callable[[Context, int], bool]
    needs: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    stops_before: frozenset[str] = frozenset()
    start_seconds: float = 120


def run_side_by_side(
    needs: Mapping[str, Set[str]], action: Callable[[str], None], stop_asked: threading.Event
) -> None:
    """Call `action(name)` for each name in `needs`, in threads; after a failure or a stop, begin nothing new.

    Raises:
        Exception: the first one that an action raised, once all running actions have ended.
    """
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    ended: queue.Queue[tuple[str, Exception | None]] = queue.Queue()
    first_error: Exception | None = None
    running = 0

    def run(name: str) -> None:
        try:
            action(name)
        except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
            ended.put((name, error))
        else:
            ended.put((name, None))

    while True:
        if first_error is None and not stop_asked.is_set():
            for name in sorter.get_ready():
                # Daemon threads: a hanging one cannot keep a stopped stack alive.
                threading.Thread(target=run, args=(name,), name=name, daemon=True).start()
                running += 1
        if not running:
            break
        name, error = ended.get()
        running -= 1
        sorter.done(name)
        if error is not None and first_error is None:
            first_error = error
            stop_asked.set()
    if first_error is not None:
        raise first_error


def with_needs(wanted: Set[str], needs: Mapping[str, Set[str]]) -> frozenset[str]:
    """Return `wanted` with all that they need, to any depth."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needs[name]
    return frozenset(found)


def stop_order(names: Set[str], needs: Mapping[str, Set[str]]) -> dict[str, set[str]]:
    """Return, for each of `names`, those of them that need it, to any depth: they have to be gone first."""
    users: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for needed in (with_needs(needs[name], needs) & names) - {name}:
            users[needed].add(name)
    return users
